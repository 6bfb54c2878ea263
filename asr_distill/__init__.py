"""Acoustic-model distillation for speech recognition (Hinton, Vinyals and Dean, 2015)."""

import os

from asr_distill.malloc import keep_freed_memory

__version__ = "0.1.0"

# Torch's threads spin while they wait for each other. Beside any other work on the machine each wait then costs a
# time slice (measured on 2 cores: 50 x slower small operations); sleeping costs microseconds. Before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

keep_freed_memory()
