"""Everything measured to tables and plots."""
