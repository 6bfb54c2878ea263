"""A student to the forms that users deploy."""
