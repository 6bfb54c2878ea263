"""Acoustic-model distillation for speech recognition (Hinton, Vinyals and Dean, 2015)."""

__version__ = "0.1.0"
