"""Decoding of many utterances by k2, behind the interface of search.SearchPool."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from asr_distill.decode.decoder import Hypothesis, NbestPath, SearchConfig
from asr_distill.decode.k2.decoder import K2Decoder, K2Found
from asr_distill.decode.lattice import distinct_paths
from asr_distill.decode.search import Decoded, Job, SearchPool

BATCH = 16  # utterances searched in step
BATCH_FRAMES = 20_000  # of a batch at most, padding included


class K2Pool(SearchPool):
    """One graph on one device at a time; batches instead of threads."""

    backend = "k2"

    def __init__(self, device: torch.device):
        super().__init__(1)
        self.device = device
        self._decoders: dict[Path, K2Decoder] = {}

    def __exit__(self, *_: object) -> None:
        self._decoders.clear()
        super().__exit__()

    def search(self, graph_dir: Path, config: SearchConfig, jobs: Iterator[Job]) -> Iterator[Decoded]:
        """Results batch by batch. Raises UserError as K2Decoder."""
        if graph_dir not in self._decoders:
            self._decoders.clear()
            self._decoders[graph_dir] = K2Decoder(graph_dir, self.device)
        decoder = self._decoders[graph_dir]
        for batch in batches(jobs):
            yield from _decode(decoder, config, batch)


def batches(jobs: Iterator[Job]) -> Iterator[list[Job]]:
    """In the jobs' order. An utterance that is longer than BATCH_FRAMES is a batch of its own."""
    batch: list[Job] = []
    longest = 0
    for job in jobs:
        longest = max(longest, len(job.log_likelihoods))
        if batch and (len(batch) == BATCH or longest * (len(batch) + 1) > BATCH_FRAMES):
            yield batch
            batch, longest = [], len(job.log_likelihoods)
        batch.append(job)
    if batch:
        yield batch


def _decode(decoder: K2Decoder, config: SearchConfig, batch: list[Job]) -> Iterator[Decoded]:
    clock = time.process_time if decoder.device.type == "cpu" else time.perf_counter  # k2 prunes in a second thread
    started = clock()
    found = decoder.search([job.log_likelihoods for job in batch], config, [job.id for job in batch],
                           lattices=config.nbest > 0)
    paths = [_paths(decoder, config, each) for each in found]
    per_frame = (clock() - started) / max(sum(len(job.log_likelihoods) for job in batch), 1)
    for job, each, nbest in zip(batch, found, paths, strict=True):
        frames = len(job.log_likelihoods)
        if each is None:
            yield Hypothesis(job.id, (), 0.0, per_frame * frames, frames, False,
                             forward_seconds=job.forward_seconds), nbest
            continue
        best = each.best
        yield Hypothesis(job.id, _named(decoder, best.words), best.graph_cost + config.acoustic_scale *
                         best.acoustic_cost, per_frame * frames, frames, each.reached_final, best.graph_cost,
                         best.acoustic_cost, job.forward_seconds), nbest


def _paths(decoder: K2Decoder, config: SearchConfig, found: K2Found | None) -> list[NbestPath]:
    if found is None or found.lattice is None:
        return []
    return [NbestPath(_named(decoder, path.words), path.graph_cost, path.acoustic_cost)
            for path in distinct_paths(found.lattice, config.nbest, config.acoustic_scale)]


def _named(decoder: K2Decoder, words: list[int] | tuple[int, ...]) -> tuple[str, ...]:
    return tuple(decoder.words[word] for word in words)
