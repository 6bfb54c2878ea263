"""Ensemble posteriors to soft targets; losses; the student."""
