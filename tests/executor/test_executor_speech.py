"""Features, alignments and words: the same to the last bit whoever computes them, also where a worker is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import lhotse
import numpy as np
import pytest
import soundfile
import torch
from decode_toy import ToyEmission, toy_corpus, toy_graph
from executor_killing import Killing
from hmm_worlds import LANG, make_world, templates
from test_distill_soft_store import world as soft_world

from asr_distill.decode.executor_pool import ExecutorPool
from asr_distill.decode.search import SearchConfig, decode_store
from asr_distill.distill.config import SoftTargetConfig
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.errors import UserError
from asr_distill.executor import Executor, Threads
from asr_distill.features import parts
from asr_distill.features.compute import compute_store
from asr_distill.features.degrade import DegradeConfig
from asr_distill.features.fbank import FbankConfig
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment, align_store
from asr_distill.hmm.aligner import AlignConfig
from asr_distill.hmm.gmm import DiagGmm
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.mono import MonoConfig, train_mono

CPU = torch.device("cpu")
SEARCH = SearchConfig(insertion_penalty=0.5, nbest=5)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_SHORTEST_PART", 3.0)


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 FLAC files of 1 to 2.5 s."""
    folder = tmp_path_factory.mktemp("audio")
    random = np.random.default_rng(0)
    for number in range(24):
        samples = 0.1 * random.standard_normal(int(random.integers(16000, 40000)))
        soundfile.write(folder / f"u{number:02d}.flac", samples, 16000)
    return folder


@pytest.fixture
def cuts(audio: Path) -> lhotse.CutSet:
    """Of three speakers."""
    made = []
    for number, file in enumerate(sorted(audio.iterdir())):
        samples = soundfile.info(file).frames
        recording = lhotse.Recording(file.stem, [lhotse.AudioSource("file", [0], str(file))], 16000, samples,
                                     samples / 16000)
        words = lhotse.SupervisionSegment(file.stem, file.stem, 0.0, samples / 16000, text="ONE",
                                          speaker=f"s{number % 3}")
        made.append(lhotse.MonoCut(file.stem, 0.0, samples / 16000, 0, supervisions=[words], recording=recording))
    return lhotse.CutSet.from_cuts(made).to_eager()


class Spoken(NamedTuple):
    """A store with a GMM that knows its sounds."""

    store: FrameStore
    hmm: HmmModel
    gmm: DiagGmm


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    means = templates(np.random.default_rng(1))
    world = make_world(tmp_path_factory.mktemp("world"),
                       lambda rows, random: means[rows[:, 1], rows[:, 3]] + random.normal(size=(len(rows), 40)))
    config = MonoConfig(utterances=0, iterations=4, gaussians=40, growth_iterations=2, realign=(1, 2, 3))
    hmm, gmm, _ = train_mono(world.store, LANG, config, tmp_path_factory.mktemp("mono"), CPU)
    return Spoken(world.store, hmm, gmm)


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_graph(tmp_path_factory.mktemp("graph"))


def features(cuts: lhotse.CutSet, executor: Executor | None, out: Path) -> dict[str, bytes]:
    compute_store(cuts, out, FbankConfig(), CPU, speeds=(1.0, 0.9), degrade=DegradeConfig(), label="test", workers=2,
                  executor=executor)
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def alignment(spoken: Spoken, executor: Executor | None) -> tuple[bytes, ...]:
    found: Alignment = align_store(spoken.gmm, spoken.store, spoken.hmm, LANG, AlignConfig(), CPU, executor=executor)
    assert found.aligned.all()
    return (found.pdf_ids.tobytes(), found.phone_ids.tobytes(), found.states.tobytes(),
            json.dumps(found.figures).encode())


def words(graph: Path, executor: Executor | None, work: Path) -> Any:
    store, _ = toy_corpus(30, noise=9.0)
    with ExecutorPool(executor) if executor else nullcontext() as pool:
        hypotheses = decode_store(ToyEmission(), store, graph, SEARCH, work=work, device=CPU, pool=pool)
    assert json.loads((work / "figures.json").read_text())["decoded_now"] == 30
    return [(h.id, h.words, h.cost, h.graph_cost, h.acoustic_cost) for h in hypotheses], sorted(
        (work / "nbest.jsonl").read_text().splitlines())


def soft_targets(executor: Executor, form: Any, out: Path) -> dict[str, Any]:
    """Files' bytes and figures, shards of an utterance each."""
    store, ensemble = soft_world(directory=out.with_name(f"store_{out.name}"))
    figures = write_soft_targets(ensemble, store, out, SoftTargetConfig(
        form=form, top_k=5, shard_frames=1, max_error=0.05, max_bytes=40, pilot_frames=200), CPU, executor=executor)
    figures.pop("frames_per_second")
    return figures | {path.name: path.read_bytes() for path in out.glob("*.npy")}


def test_features(executor: Executor, cuts: lhotse.CutSet, tmp_path: Path) -> None:
    assert features(cuts, executor, tmp_path / "a") == features(cuts, None, tmp_path / "b")


def test_alignments(executor: Executor, spoken: Spoken) -> None:
    assert alignment(spoken, executor) == alignment(spoken, None)


def test_words(executor: Executor, graph: Path, tmp_path: Path) -> None:
    assert words(graph, executor, tmp_path / "a") == words(graph, None, tmp_path / "b")


@pytest.mark.slow
def test_a_worker_killed_in_the_middle(several: Executor, cuts: lhotse.CutSet, spoken: Spoken, graph: Path,
                                       tmp_path: Path) -> None:
    killing = Killing(several)
    assert features(cuts, killing, tmp_path / "a") == features(cuts, None, tmp_path / "b")
    assert alignment(spoken, killing) == alignment(spoken, None)
    assert words(graph, killing, tmp_path / "c") == words(graph, None, tmp_path / "d")
    assert soft_targets(killing, "top_k", tmp_path / "e") == soft_targets(Threads(1), "top_k", tmp_path / "f")
    assert len(set(killing.killed)) == 4


@pytest.mark.parametrize("form", ["top_k", "compact"])
def test_soft_targets(executor: Executor, form: str, tmp_path: Path) -> None:
    assert soft_targets(executor, form, tmp_path / "a") == soft_targets(Threads(1), form, tmp_path / "b")


def test_soft_targets_are_not_asked_for_twice(tmp_path: Path) -> None:
    """After a kill: whatever shards are there, in whatever order they came."""
    class Broken(Threads):
        def run(self, function: Any, jobs: Any, **more: Any) -> Iterator[tuple[Any, Any]]:
            yield from super().run(function, [job for job in jobs if job[0] in (2, 6)], **more)
            raise KeyboardInterrupt

    asked: list[int] = []

    class Noted(Threads):
        def run(self, function: Any, jobs: Any, **more: Any) -> Iterator[tuple[Any, Any]]:
            asked.extend(job[0] for job in jobs)
            return super().run(function, jobs, **more)

    with pytest.raises(KeyboardInterrupt):
        soft_targets(Broken(1), "top_k", tmp_path / "a")
    assert soft_targets(Noted(1), "top_k", tmp_path / "a") == soft_targets(Threads(1), "top_k", tmp_path / "b")
    assert sorted(asked) == [0, 1, 3, 4, 5, 7]


def test_damaged_audio_is_named(executor: Executor, cuts: lhotse.CutSet, tmp_path: Path) -> None:
    """One clear line, and what was finished is kept."""
    broken = tmp_path / "u20.flac"
    broken.write_bytes(b"fLaC and no more")
    cuts["u20"].recording.sources[0].source = str(broken)
    with pytest.raises(UserError, match=r"u20\.flac: truncated or damaged"):
        compute_store(cuts, tmp_path / "out", FbankConfig(), CPU, label="test", executor=executor)
    assert list((tmp_path / "out").glob(".parts-*/*.npy"))


def test_a_fault_in_decoding_names_the_utterance(executor: Executor, graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(9)
    store.matrices[4][3, 2] = np.nan
    with pytest.raises(UserError, match=r"^utt004: the model's log-likelihoods hold NaN"):
        decode_store(ToyEmission(), store, graph, SEARCH, work=tmp_path, device=CPU, pool=ExecutorPool(executor))
