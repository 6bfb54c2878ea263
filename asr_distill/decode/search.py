"""Decode a whole frame store: the network in this process, the search in worker processes, every result kept at once.

The search needs processes, not threads, because kaldi_decoder keeps the interpreter lock (see decoder.py). Workers
take log-likelihood matrices through a short queue, so the network runs while earlier utterances are searched.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_distill.decode.decoder import Decoder, Hypothesis, SearchConfig, penalised_graph
from asr_distill.errors import UserError
from asr_distill.executor import Workers
from asr_distill.files import file_digest, read_json, write_json
from asr_distill.progress import Progress

if TYPE_CHECKING:
    import torch

    from asr_distill.emission import EmissionModel
    from asr_distill.features.store import FrameStore

__all__ = ["Decoder", "Hypothesis", "SearchConfig", "decode_store", "decoding_figures", "read_hypotheses"]

log = logging.getLogger("asr_distill")
FRAME_SECONDS = 0.01
JOURNAL = "hypotheses.jsonl"


@dataclass(frozen=True)
class _Job:
    id: str
    log_likelihoods: np.ndarray  # float32 (frames, pdfs)
    forward_seconds: float


def decode_store(emission: EmissionModel, store: FrameStore, graph_dir: Path, config: SearchConfig, *, work: Path,
                 workers: int = 1, device: torch.device, utterances: Sequence[int] | None = None,
                 label: str = "decode", pool: SearchPool | None = None) -> list[Hypothesis]:
    """Hypotheses of `utterances` (indices; None: all), in the order of the store or of `utterances`.

    Each is appended to `work`/hypotheses.jsonl when it is found; a run that was killed goes on where it
    stopped. `work` belongs to one emission model and one store; where the search settings or the graph are others
    than the hypotheses kept there were made with, it starts anew. At the end `work`/figures.json holds
    `decoding_figures`. `workers` 0 means one a core; a `pool` is used in their place.
    Raises UserError as Decoder and run_jobs do.
    """
    def likelihoods(index: int) -> np.ndarray:
        return emission.log_likelihoods(store.features(index, device)).float().cpu().numpy()

    return decode_likelihoods(likelihoods, store, graph_dir, config, work=work, workers=workers,
                              utterances=utterances, label=label, pool=pool)


def decode_likelihoods(likelihoods: Callable[[int], np.ndarray], store: FrameStore, graph_dir: Path,
                       config: SearchConfig, *, work: Path, workers: int = 1, utterances: Sequence[int] | None = None,
                       label: str = "decode", pool: SearchPool | None = None) -> list[Hypothesis]:
    """`decode_store` for any source of log-likelihoods: index in the store -> float32 (frames, pdfs)."""
    indices = range(len(store.utterances)) if utterances is None else utterances
    ids = [store.utterances[index].id for index in indices]
    journal = work / JOURNAL
    _claim(work, graph_dir, config)
    found = {hypothesis.id: hypothesis for hypothesis in read_hypotheses(journal, repair=True)}
    missing = [index for index, id in zip(indices, ids, strict=True) if id not in found]
    started = time.perf_counter()
    if missing:
        jobs = _forward(likelihoods, store, missing)
        with open(journal, "a", encoding="utf-8") as file, \
                Progress(label, len(ids), "utterances", done=len(ids) - len(missing)) as progress, \
                (nullcontext(pool) if pool else SearchPool(min(workers, len(missing)))) as searchers:
            for hypothesis in _search(jobs, graph_dir, config, searchers):
                file.write(json.dumps(dataclasses.asdict(hypothesis), ensure_ascii=False) + "\n")
                file.flush()
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


def read_hypotheses(path: Path, *, repair: bool = False) -> list[Hypothesis]:
    """The hypotheses of a journal; none where it does not exist. A torn last line (the writer was killed) is left out,
    and with `repair` also cut from the file. Raises UserError for any other damage.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if repair and whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
    hypotheses = []
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
        try:
            fields = json.loads(line)
            hypotheses.append(Hypothesis(**(fields | {"words": tuple(fields["words"])})))
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}:{number}: not a hypothesis; delete the file and decode again") from None
    return hypotheses


def _claim(work: Path, graph_dir: Path, config: SearchConfig) -> None:
    """Empty `work` of hypotheses that other settings or another graph made, and note these."""
    graph = graph_dir / "HCLG.fst"
    if not graph.is_file():
        raise UserError(f"{graph}: no such file; compile the graph first")
    wanted = {"search": dataclasses.asdict(config), "graph": file_digest(graph)}
    note = work / "search.json"
    if note.exists() and read_json(note) == wanted:
        return
    if (work / JOURNAL).exists():
        log.info("%s: made with other search settings or another graph; decoding anew", work / JOURNAL)
        (work / JOURNAL).unlink()
    write_json(note, wanted)


def _forward(likelihoods: Callable[[int], np.ndarray], store: FrameStore, indices: Sequence[int]) -> Iterator[_Job]:
    """The network's part, run as the queue of searches drains."""
    for index in indices:
        started = time.perf_counter()
        matrix = likelihoods(index)
        yield _Job(store.utterances[index].id, matrix, time.perf_counter() - started)


class SearchPool(Workers):
    """Search processes that keep their graph from one `decode_store` or `tune` to the next.

    A graph with an insertion penalty is written once, in a temporary folder that goes with the pool.
    """

    def __init__(self, workers: int):
        super().__init__(workers)
        self._folders = ExitStack()
        self._graphs: dict[tuple[Path, float], Path] = {}

    def graph(self, graph_dir: Path, penalty: float) -> Path:
        """The directory with that penalty on every word."""
        key = (graph_dir, penalty)
        if key not in self._graphs:
            self._graphs[key] = self._folders.enter_context(penalised_graph(graph_dir, penalty))
        return self._graphs[key]

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._folders.close()
        self._graphs.clear()
        _loaded.clear()  # with one worker the graph lies in this process


def _search(jobs: Iterator[_Job], graph_dir: Path, config: SearchConfig, pool: SearchPool) -> Iterator[Hypothesis]:
    """The search's part: hypotheses as they come, in no set order."""
    directory = pool.graph(graph_dir, config.insertion_penalty)
    without_penalty = dataclasses.replace(config, insertion_penalty=0.0)  # it is in the graph by now
    for _, hypothesis in pool.run(_decode_job, ((directory, without_penalty, job) for job in jobs)):
        yield hypothesis


_loaded: dict[Path, Decoder] = {}  # this process's decoder: one graph at a time


def _decode_job(task: tuple[Path, SearchConfig, _Job]) -> Hypothesis:
    directory, config, job = task
    if directory not in _loaded:
        _loaded.clear()
        _loaded[directory] = Decoder(directory, config)
    decoder = _loaded[directory]
    if decoder.config != config:
        decoder = _loaded[directory] = decoder.with_config(config)
    return dataclasses.replace(decoder.decode(job.log_likelihoods, job.id), forward_seconds=job.forward_seconds)
