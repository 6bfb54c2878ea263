"""Studies: one recipe over a grid of settings, its stages shared, the results in one table."""
