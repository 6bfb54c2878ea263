"""The toy worlds of other rooms; workers of an executor are given this path too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[1] / room) for room in ("acoustic", "executor")]
