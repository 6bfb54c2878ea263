"""Decode a whole frame store: the network in this thread, the search in others, every result kept at once.

Searches take log-likelihood matrices through a short queue, so the network runs while earlier utterances are searched.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_distill.decode.decoder import Decoder, Hypothesis, NbestPath, SearchConfig
from asr_distill.decode.journal import JOURNAL, NBEST, Journals, read_hypotheses
from asr_distill.errors import UserError
from asr_distill.executor import available_cpus
from asr_distill.files import file_digest, read_json, write_json
from asr_distill.progress import Progress

if TYPE_CHECKING:
    import torch

    from asr_distill.emission import EmissionModel
    from asr_distill.features.store import FrameStore

__all__ = ["JOURNAL", "Decoder", "Hypothesis", "SearchConfig", "SearchPool", "decode_store", "decoding_figures",
           "read_hypotheses"]

log = logging.getLogger("asr_distill")
FRAME_SECONDS = 0.01
Decoded = tuple[Hypothesis, list[NbestPath]]


@dataclass(frozen=True)
class Job:
    """One utterance to be searched."""

    id: str
    log_likelihoods: np.ndarray  # float32 (frames, pdfs)
    forward_seconds: float


def decode_store(emission: EmissionModel, store: FrameStore, graph_dir: Path, config: SearchConfig, *, work: Path,
                 workers: int = 1, device: torch.device, utterances: Sequence[int] | None = None,
                 label: str = "decode", pool: SearchPool | None = None) -> list[Hypothesis]:
    """Hypotheses of `utterances` (indices; None: all), in the order of the store or of `utterances`.

    Each is appended to `work`/hypotheses.jsonl when it is found (and with `config.nbest` its n best to
    `work`/nbest.jsonl, see journal.py); a run that was killed goes on where it
    stopped. `work` belongs to one emission model and one store; where the search settings, the graph or the pool's
    backend are others than the hypotheses kept there were made with, it starts anew. At the end `work`/figures.json
    holds `decoding_figures`. `workers` 0 means one a core; a `pool` is used in their place.
    Raises UserError as Decoder and Executor.run do.
    """
    return decode_likelihoods(ModelLikelihoods(emission, store, device), store, graph_dir, config, work=work,
                              workers=workers, utterances=utterances, label=label, pool=pool)


class ModelLikelihoods:
    """An emission model's, by index in the store: float32 (frames, pdfs). It can be sent to another process."""

    def __init__(self, emission: EmissionModel, store: FrameStore, device: torch.device):
        self.emission, self.store, self.device = emission, store, device

    def __call__(self, index: int) -> np.ndarray:
        return self.emission.log_likelihoods(self.store.features(index, self.device)).float().cpu().numpy()


def decode_likelihoods(likelihoods: Callable[[int], np.ndarray], store: FrameStore, graph_dir: Path,
                       config: SearchConfig, *, work: Path, workers: int = 1, utterances: Sequence[int] | None = None,
                       label: str = "decode", pool: SearchPool | None = None) -> list[Hypothesis]:
    """`decode_store` for any source of log-likelihoods: index in the store -> float32 (frames, pdfs)."""
    indices = range(len(store.utterances)) if utterances is None else utterances
    ids = [store.utterances[index].id for index in indices]
    _claim(work, graph_dir, config, pool.backend if pool else SearchPool.backend)
    found = {hypothesis.id: hypothesis for hypothesis in read_hypotheses(work / JOURNAL, repair=True)}
    missing = [index for index, id in zip(indices, ids, strict=True) if id not in found]
    started = time.perf_counter()
    if missing:
        with Progress(label, len(ids), "utterances", done=len(ids) - len(missing)) as progress, \
                Journals(work, with_paths=config.nbest > 0) as journals, \
                (nullcontext(pool) if pool else SearchPool(min(workers, len(missing)))) as searchers:
            for hypothesis, paths in searchers.decode(likelihoods, store, missing, graph_dir, config):
                journals.append(hypothesis, paths)
                found[hypothesis.id] = hypothesis
                progress.update(1)
    hypotheses = [found[id] for id in ids]
    if missing or not (work / "figures.json").exists():  # else those of the run that did the work stay
        figures = decoding_figures(hypotheses, [store.utterances[index].seconds for index in indices])
        write_json(work / "figures.json", figures | {
            "decoded_now": len(missing), "workers": pool.workers if pool else workers,
            "wall_seconds": time.perf_counter() - started})
    return hypotheses


def decoding_figures(hypotheses: Sequence[Hypothesis], audio_seconds: Sequence[float] | None = None) -> dict[str, Any]:
    """Sizes and real-time factors. `rtf_search`: CPU seconds of the search on one core per second of audio (without
    durations: 10 ms a frame); `rtf`: the same with the wall-clock seconds of the forward passes added.
    """
    frames = sum(hypothesis.frames for hypothesis in hypotheses)
    audio = sum(audio_seconds) if audio_seconds is not None else frames * FRAME_SECONDS
    search = sum(hypothesis.seconds for hypothesis in hypotheses)
    forward = sum(hypothesis.forward_seconds for hypothesis in hypotheses)
    return {"utterances": len(hypotheses), "words": sum(len(hypothesis.words) for hypothesis in hypotheses),
            "partial": sum(not hypothesis.reached_final for hypothesis in hypotheses),
            "frames": frames, "audio_seconds": audio, "search_seconds": search, "forward_seconds": forward,
            "rtf_search": search / audio if audio else 0.0, "rtf": (search + forward) / audio if audio else 0.0}


def _claim(work: Path, graph_dir: Path, config: SearchConfig, backend: str) -> None:
    """Empty `work` of hypotheses that other settings, another graph or another backend made, and note these."""
    graph = graph_dir / "HCLG.fst"
    if not graph.is_file():
        raise UserError(f"{graph}: no such file; compile the graph first")
    wanted = {"search": dataclasses.asdict(config), "graph": file_digest(graph)}
    if backend != SearchPool.backend:
        wanted["backend"] = backend
    note = work / "search.json"
    if note.exists() and read_json(note) == wanted:
        return
    if (work / JOURNAL).exists():
        log.info("%s: made with other search settings or another graph; decoding anew", work / JOURNAL)
    for name in (JOURNAL, NBEST):
        (work / name).unlink(missing_ok=True)
    write_json(note, wanted)


def _forward(likelihoods: Callable[[int], np.ndarray], store: FrameStore, indices: Sequence[int]) -> Iterator[Job]:
    """The network's part, run as the queue of searches drains."""
    for index in indices:
        started = time.perf_counter()
        matrix = likelihoods(index)
        yield Job(store.utterances[index].id, matrix, time.perf_counter() - started)


class SearchPool:
    """Search threads and the graph they share, kept from one `decode_store` or `tune` to the next.

    The compiled search holds no interpreter lock, so threads run side by side on one graph in memory. `workers` 0
    means one a core; with 1 everything is done in this thread. k2/pool.py searches on a GPU in its place.
    """

    backend = "cpu"

    def __init__(self, workers: int):
        self.workers = workers or available_cpus()
        self._threads = ThreadPoolExecutor(self.workers) if self.workers > 1 else None
        self._loaded: dict[Path, Decoder] = {}  # one graph at a time

    def __enter__(self) -> SearchPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        self._loaded.clear()

    def decode(self, likelihoods: Callable[[int], np.ndarray], store: FrameStore, indices: Sequence[int],
               graph_dir: Path, config: SearchConfig) -> Iterator[Decoded]:
        """Utterances of a store in no set order: their log-likelihoods in this thread as the searches drain them."""
        yield from self.search(graph_dir, config, _forward(likelihoods, store, indices))

    def search(self, graph_dir: Path, config: SearchConfig, jobs: Iterator[Job]) -> Iterator[Decoded]:
        """Results as they come, in no set order. Raises UserError as Decoder."""
        return self._run(self._decoder(graph_dir, config), jobs)

    def _decoder(self, graph_dir: Path, config: SearchConfig) -> Decoder:
        if graph_dir not in self._loaded:
            self._loaded.clear()
            self._loaded[graph_dir] = Decoder(graph_dir, config)
        return self._loaded[graph_dir].with_config(config)

    def _run(self, decoder: Decoder, jobs: Iterator[Job]) -> Iterator[Decoded]:
        """A few matrices a thread are in memory at once."""
        if self._threads is None:
            yield from (decode_job(decoder, job) for job in jobs)
            return
        pending: set[Future[Decoded]] = set()
        try:
            for job in jobs:
                pending.add(self._threads.submit(decode_job, decoder, job))
                if len(pending) >= 4 * self.workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in as_completed(pending))
        finally:
            for future in pending:
                future.cancel()


def decode_job(decoder: Decoder, job: Job) -> Decoded:
    paths: list[NbestPath] = []
    if decoder.config.nbest:
        hypothesis, paths = decoder.decode_nbest(job.log_likelihoods, job.id)
    else:
        hypothesis = decoder.decode(job.log_likelihoods, job.id)
    return dataclasses.replace(hypothesis, forward_seconds=job.forward_seconds), paths
