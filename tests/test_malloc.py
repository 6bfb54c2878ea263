"""Freed memory stays with the process: the next large tensor costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import resource, sys
if sys.argv[1] == "ours":
    import asr_distill
import torch
torch.set_num_threads(1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    return [torch.ones(2 << 20) for _ in range(32)] and None  # 256 MiB: 65,536 pages
for _ in range(3):
    step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


def page_faults(which: str) -> int:
    return int(subprocess.run([sys.executable, "-c", PROBE, which], capture_output=True, text=True,
                              check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_freed_tensors_memory_is_used_again() -> None:
    plain = page_faults("plain")
    if not plain:
        pytest.skip("this kernel counts no page faults (gVisor)")
    assert page_faults("ours") < 0.1 * plain
