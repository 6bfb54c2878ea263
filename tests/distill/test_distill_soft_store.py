from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network
from asr_distill.distill import soft_writer
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.losses import top_k_cross_entropy
from asr_distill.distill.soft_store import SoftStore
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.distill.targets import SoftTargets
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore

CPU = torch.device("cpu")
PDFS = 40
CONFIG = SoftTargetConfig(temperature=2.0, top_k=5, shard_frames=100)


def world(seed: int = 0, directory: Path | None = None) -> tuple[FrameStore, Ensemble]:
    store, _, cmvn = synthetic(utterances=8, pdfs=PDFS, directory=directory)
    config = NetworkConfig(layers=1, width=16, left=2, right=1)
    models = []
    for index in range(3):
        network = build_network(config, 6, PDFS, seed=seed + index).eval()
        with torch.no_grad():
            network.output.weight.mul_(30)
        models.append(AcousticModel(network, cmvn, log_priors_of(torch.ones(PDFS)), config))
    return store, Ensemble(models)


def full_posteriors(store: FrameStore, ensemble: Ensemble, temperature: float, mean: str) -> np.ndarray:
    """float64 reference: softmax(logits / T) of each teacher, averaged."""
    rows = []
    for index in range(len(store.utterances)):
        utterance = store.features(index, CPU)
        logits = np.stack([m.logits(utterance).double().numpy() for m in ensemble.models]) / temperature
        each = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
        average = each.mean(0) if mean == "arithmetic" else np.exp(np.log(each).mean(0))
        rows.append(average / average.sum(1, keepdims=True))
    return np.concatenate(rows)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@pytest.mark.parametrize("top_k", [1, 5, 0])
def test_what_is_stored(tmp_path: Path, mean: str, top_k: int) -> None:
    store, ensemble = world()
    ensemble = Ensemble(ensemble.models, mean)  # type: ignore[arg-type]
    figures = write_soft_targets(ensemble, store, tmp_path, replace(CONFIG, top_k=top_k), CPU)
    soft = SoftStore.open(tmp_path)
    full = full_posteriors(store, ensemble, 2.0, mean)
    k = top_k or PDFS
    best = -np.sort(-full, 1)[:, :k]
    np.testing.assert_allclose(soft.probabilities, best, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(full, soft.ids.astype(np.int64), 1), best, rtol=1e-4)
    np.testing.assert_allclose(soft.remainder, 1 - best.sum(1), atol=1e-3)
    assert soft.ids.dtype == np.uint16
    assert figures["bytes_per_frame"] == 4 * k + 2
    assert sum(soft_file.stat().st_size for soft_file in tmp_path.glob("*.npy")) == pytest.approx(
        figures["bytes_per_frame"] * store.num_frames, abs=3 * 128)
    # the kept form as a whole distribution, and its cost in nats
    rebuilt = np.tile(soft.remainder.astype(np.float64)[:, None] / max(1, PDFS - k), PDFS)
    np.put_along_axis(rebuilt, soft.ids.astype(np.int64), soft.probabilities.astype(np.float64), 1)
    excess = (full * (np.log(full) - np.log(np.maximum(rebuilt, 1e-12)))).sum(1).mean()
    assert figures["truncation_nats"] == pytest.approx(excess, abs=2e-4)
    assert figures["entropy_nats"] == pytest.approx(-(full * np.log(full)).sum(1).mean(), abs=1e-4)
    assert figures["remainder_mass"] == pytest.approx(1 - best.sum(1).mean(), abs=1e-4)


def test_the_same_from_groups_of_utterances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where utterances are asked together."""
    store, ensemble = world()
    alone = write_soft_targets(ensemble, store, tmp_path / "alone", CONFIG, CPU)

    def pairs(lengths: list[int], device: torch.device) -> list[range]:
        return [range(begin, min(begin + 2, len(lengths))) for begin in range(0, len(lengths), 2)]

    monkeypatch.setattr(soft_writer, "groups", pairs)
    together = write_soft_targets(ensemble, store, tmp_path / "together", CONFIG, CPU)
    assert together["entropy_nats"] == pytest.approx(alone["entropy_nats"], abs=1e-5)
    one, two = SoftStore.open(tmp_path / "alone"), SoftStore.open(tmp_path / "together")
    assert (one.ids == two.ids).mean() > 0.999
    np.testing.assert_allclose(one.probabilities.astype(np.float32), two.probabilities.astype(np.float32), atol=1e-3)


def test_bfloat16_teachers_are_near(tmp_path: Path) -> None:
    store, ensemble = world()
    write_soft_targets(ensemble, store, tmp_path, replace(CONFIG, precision="bfloat16", top_k=0), CPU)
    soft = SoftStore.open(tmp_path)
    full = full_posteriors(store, ensemble, 2.0, "arithmetic")
    stored = np.take_along_axis(full, soft.ids.astype(np.int64), 1)
    assert np.abs(stored - soft.probabilities).max() < 0.02


WORKER = """
import sys, time
from pathlib import Path
sys.path[:0] = [{here!r}, {stand_ins!r}]
from test_distill_soft_store import *
torch.set_num_threads(1)
ask = Ensemble.log_posteriors
def slow(self, *args):
    time.sleep(0.05)
    return ask(self, *args)
Ensemble.log_posteriors = slow
store, ensemble = world()
write_soft_targets(ensemble, store, Path({out!r}), CONFIG, CPU)
"""


def test_killed_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ensemble = world()
    expected = write_soft_targets(ensemble, store, tmp_path / "whole", CONFIG, CPU)
    out = tmp_path / "killed"
    here = Path(__file__).parent
    code = WORKER.format(here=str(here), stand_ins=str(here.parent / "acoustic"), out=str(out))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parents[1]), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        deadline = time.monotonic() + 60
        while len(_finished(out / "progress.json")) < 2 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(UserError, match=r"soft_targets\.json: no such file"):
        SoftStore.open(out)
    there = len(_finished(out / "progress.json"))
    assert there >= 2
    asked: list[int] = []
    features = FrameStore.features
    monkeypatch.setattr(FrameStore, "features", lambda self, index, device: (asked.append(index),
                                                                               features(self, index, device))[1])
    figures = write_soft_targets(ensemble, store, out, CONFIG, CPU)
    assert asked[0] >= there and asked[-1] == 7
    assert {k: v for k, v in figures.items() if k != "frames_per_second"} == \
        {k: v for k, v in expected.items() if k != "frames_per_second"}
    for name in ("ids", "probabilities", "remainder"):
        assert (out / f"{name}.npy").read_bytes() == (tmp_path / "whole" / f"{name}.npy").read_bytes()


def _finished(record: Path) -> dict[str, dict[str, float]]:
    return json.loads(record.read_text())["done"] if record.exists() else {}


def test_other_teachers_are_written_anew(tmp_path: Path) -> None:
    store, ensemble = world()
    write_soft_targets(ensemble, store, tmp_path, CONFIG, CPU)
    first = np.array(SoftStore.open(tmp_path).probabilities)
    write_soft_targets(world(seed=9)[1], store, tmp_path, CONFIG, CPU)
    assert not np.array_equal(first, SoftStore.open(tmp_path).probabilities)


@pytest.mark.parametrize("hard_weight", [0.0, 0.5])
@pytest.mark.parametrize("remainder", ["lumped", "uniform"])
def test_targets_gather_by_frame(tmp_path: Path, hard_weight: float, remainder: str) -> None:
    store, ensemble = world()
    write_soft_targets(ensemble, store, tmp_path, CONFIG, CPU)
    soft = SoftStore.open(tmp_path)
    pdf_ids = torch.randint(0, PDFS, (store.num_frames,))
    config = DistillConfig(hard_weight=hard_weight, remainder=remainder)  # type: ignore[arg-type]
    targets = SoftTargets.open(tmp_path, config, pdf_ids).to(CPU)
    frames = torch.tensor([3, 77, 3, store.num_frames - 1])
    logits = torch.randn(4, PDFS)
    rows = frames.numpy()
    expected = top_k_cross_entropy(
        logits, torch.from_numpy(soft.ids[rows].astype(np.int64)), torch.from_numpy(soft.probabilities[rows]),
        torch.from_numpy(soft.remainder[rows]), 2.0, kind=remainder, pdf_ids=pdf_ids[frames],  # type: ignore[arg-type]
        hard_weight=hard_weight)
    torch.testing.assert_close(targets.loss(logits, frames), expected)


def test_ids_beyond_signed_16_bits() -> None:
    ids = np.array([[65_000, 40_000, 1]], np.uint16)
    store = SoftStore(ids, np.array([[0.5, 0.3, 0.1]], np.float16), np.array([0.1], np.float16), 1.0, 65_536, {})
    gathered, _, _ = SoftTargets(store, DistillConfig(hard_weight=0), None).gather(torch.tensor([0, 0]))
    assert gathered.tolist() == [[65_000, 40_000, 1]] * 2


def test_mistakes_are_named(tmp_path: Path) -> None:
    store, ensemble = world()
    write_soft_targets(ensemble, store, tmp_path, CONFIG, CPU)
    with pytest.raises(UserError, match="write the soft targets of this store again"):
        SoftTargets.open(tmp_path, DistillConfig(), torch.zeros(5))
    with pytest.raises(ValueError, match="needs pdf_ids"):
        SoftTargets.open(tmp_path, DistillConfig(), None)
    np.save(tmp_path / "remainder.npy", np.zeros(3, np.float16))
    with pytest.raises(UserError, match="damaged soft targets"):
        SoftStore.open(tmp_path)
    for settings in ({"temperature": 0}, {"top_k": -1}, {"shard_frames": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            SoftTargetConfig(**settings)  # type: ignore[arg-type]
