"""Posteriors in a few bytes a frame: coordinates in a basis of log-posteriors, quantised to a stated error."""
