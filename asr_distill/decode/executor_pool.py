"""Decoding of many utterances by an executor's workers, behind the interface of search.SearchPool.

A worker computes its utterances' log-likelihoods itself and searches them. The graph it reads from its file, once: the
folder must be on a file system that all workers see.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.search import Decoded, Job, SearchPool, decode_job
from asr_distill.executor import Context, Executor, named
from asr_distill.features.store import FrameStore

_JOB = 16  # utterances at most
_Chunk = list[tuple[int, str]]  # index in the store, id
_loaded: dict[tuple[str, int, int], Decoder] = {}  # of this process, by path, time and size: one graph at a time


class ExecutorPool(SearchPool):
    """Words, costs and n-best lists are those of the threads, bit for bit, where these too compute on one thread."""

    def __init__(self, executor: Executor):
        super().__init__(1)
        self.executor, self.workers = executor, executor.workers

    def __exit__(self, *_: object) -> None:
        _loaded.clear()  # of the executor serial
        super().__exit__()

    def decode(self, likelihoods: Callable[[int], np.ndarray], store: FrameStore, indices: Sequence[int],
               graph_dir: Path, config: SearchConfig) -> Iterator[Decoded]:
        size = min(_JOB, max(1, len(indices) // (4 * self.workers)))
        chunks: Iterator[_Chunk] = ([(index, store.utterances[index].id) for index in indices[at : at + size]]
                                    for at in range(0, len(indices), size))
        for _, found in self.executor.run(
                _decode_chunk, chunks, context=Context(_Searching, (likelihoods, graph_dir, config)),
                name=lambda chunk: f"decoding of {chunk[0][1]} to {chunk[-1][1]}"):
            yield from found


class _Searching:
    """A worker's context."""

    def __init__(self, likelihoods: Callable[[int], np.ndarray], graph_dir: Path, config: SearchConfig):
        self.likelihoods = likelihoods
        self.decoder = _decoder(graph_dir).with_config(config)


def _decoder(graph_dir: Path) -> Decoder:
    """Kept from list to list: models change more often than graphs."""
    path = graph_dir.resolve() / "HCLG.fst"
    status = os.stat(path)
    key = str(path), status.st_mtime_ns, status.st_size
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = Decoder(graph_dir, SearchConfig())
    return _loaded[key]


def _decode_chunk(searching: _Searching, chunk: _Chunk) -> list[Decoded]:
    found = []
    for index, id in chunk:
        with named(id):
            started = time.perf_counter()
            matrix = searching.likelihoods(index)
            found.append(decode_job(searching.decoder, Job(id, matrix, time.perf_counter() - started)))
    return found
