"""Who searches: threads of this process, an executor's workers, or k2."""

from __future__ import annotations

import torch

from asr_distill.decode.executor_pool import ExecutorPool
from asr_distill.decode.k2.pool import K2Pool
from asr_distill.decode.search import SearchPool
from asr_distill.executor import Executor
from asr_distill.k2fsa import Backend, use_k2


def search_pool(workers: int, backend: Backend, device: torch.device, executor: Executor | None = None) -> SearchPool:
    """k2 where it is asked for; else the executor; else k2 on a GPU where `auto` finds it; else threads.

    `workers` as of SearchPool. Raises UserError where k2 is asked for and missing.
    """
    if (backend == "k2" or executor is None) and use_k2(backend, device):
        return K2Pool(device)
    return ExecutorPool(executor) if executor else SearchPool(workers)
