from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import synthetic

from asr_distill.acoustic import precision
from asr_distill.acoustic.checkpoint import read_tensors
from asr_distill.acoustic.config import AugmentConfig, DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.targets import HardTargets
from asr_distill.acoustic.trainer import TrainResult, train
from asr_distill.errors import UserError

CPU = torch.device("cpu")
SHAPE = NetworkConfig(layers=2, width=32, left=3, right=1)
CONFIG = TrainerConfig(batch=64, epochs=12, warmup_updates=5, learning_rate=5e-3, precision="float32",
                       tensorboard=False)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    store, alignment, cmvn = synthetic()
    return TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0.2), CPU, left=3, right=1)


def run(data: TrainingData, work: Path, config: TrainerConfig = CONFIG, *, seed: int = 0, shape: NetworkConfig = SHAPE,
        targets: HardTargets | None = None) -> TrainResult:
    network = build_network(shape, data.num_coefficients, data.num_pdfs, seed=seed)
    return train(network, data, targets or HardTargets(data.pdf_ids), config, seed=seed, work=work, device=CPU)


def weights(result: TrainResult) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in result.network.parameters()])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_learns_and_result_is_the_best_evaluation(data: TrainingData, tmp_path: Path, optimizer: str,
                                                  precision: str) -> None:
    rate = 5e-3 if optimizer == "adamw" else 5e-2
    result = run(data, tmp_path, replace(CONFIG, optimizer=optimizer, precision=precision, learning_rate=rate))  # type: ignore[arg-type]
    assert result.precision == precision
    best = max(result.history, key=lambda entry: entry["heldout_accuracy"])
    assert (result.best_update, result.accuracy) == (best["update"], best["heldout_accuracy"])
    assert result.accuracy > 0.8
    assert weights(result).dtype == torch.float32 and not result.network.training
    logits = result.network(data.windows(data.heldout, 3, 1))
    accuracy = (logits.argmax(1) == data.pdf_ids[data.heldout]).float().mean()
    assert float(accuracy) == pytest.approx(result.accuracy, abs=1e-6 if precision == "float32" else 0.02)
    assert json.loads((tmp_path / "history.json").read_text()) == result.history


def test_same_seed_same_bits_other_seed_other(data: TrainingData, tmp_path: Path) -> None:
    shape = replace(SHAPE, dropout=0.2)
    config = replace(CONFIG, epochs=2)
    torch.manual_seed(5)
    first = run(data, tmp_path / "a", config, shape=shape)
    torch.manual_seed(6)
    before = torch.get_rng_state()
    second = run(data, tmp_path / "b", config, shape=shape)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(run(data, tmp_path / "c", config, seed=1, shape=shape)))


WORKER = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
from test_acoustic_trainer import *
torch.set_num_threads(1)
store, alignment, cmvn = synthetic()
data = TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0.2), CPU, left=3, right=1)
class Slow(HardTargets):
    def loss(self, logits, frames):
        time.sleep(0.02)
        return super().loss(logits, frames)
    def to(self, device):
        return self
Slow.__name__ = "HardTargets"
run(data, Path({work!r}), {config}, shape={shape}, targets=Slow(data.pdf_ids))
"""


@pytest.mark.parametrize("precision, kind", [
    ("float32", "plain"), ("bfloat16", "chunks"), pytest.param("bfloat16", "plain", marks=pytest.mark.slow),
    pytest.param("float32", "chunks", marks=pytest.mark.slow)])
def test_killed_run_goes_on_to_the_same_bits(data: TrainingData, tmp_path: Path, precision: str, kind: str) -> None:
    """kill -9 at a moment of the machine's choosing, between two checkpoints and inside an epoch."""
    config = replace(CONFIG, epochs=6, precision=precision, checkpoint_updates=5, schedule="newbob")  # type: ignore[arg-type]
    shape = replace(SHAPE, dropout=0.2, norm="none" if precision == "float32" else "batch")
    if kind == "chunks":
        shape = replace(KINDS["tdnn_f"], dropout=0.2)
        config = replace(config, chunk=12, average=16, augment=AugmentConfig(time_masks=1, time_width=4, mel_masks=1,
                                                                             mel_width=2))
    expected = run(data, tmp_path / "whole", config, shape=shape)
    work = tmp_path / "killed"
    code = WORKER.format(here=str(Path(__file__).parent), work=str(work), config=repr(config), shape=repr(shape))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (work / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.13)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    state = read_tensors(work / "checkpoint.safetensors", CPU)[1]["state"]
    assert 0 < state["update"] < expected.updates
    (work / ".best.safetensors.1.tmp").write_bytes(b"half a file")
    resumed = run(data, work, config, shape=shape)
    assert resumed.updates == expected.updates
    assert torch.equal(weights(resumed), weights(expected))
    assert not list(work.glob(".*tmp"))

    def lasting(result: TrainResult) -> list[dict[str, float]]:
        return [{k: v for k, v in entry.items() if k != "seconds"} for entry in result.history]
    assert lasting(resumed) == lasting(expected)


def test_finished_run_is_not_trained_again(data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(data, tmp_path, replace(CONFIG, epochs=1))
    monkeypatch.setattr(HardTargets, "loss", lambda *_: pytest.fail("trained again"))
    assert torch.equal(weights(first), weights(run(data, tmp_path, replace(CONFIG, epochs=1))))


def test_other_settings_start_anew(data: TrainingData, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(data, tmp_path, replace(CONFIG, epochs=1))
    with caplog.at_level(logging.WARNING, "asr_distill"):
        other = run(data, tmp_path, replace(CONFIG, epochs=1, learning_rate=1e-3))
    assert "starting anew" in caplog.text
    fresh = run(data, tmp_path / "b", replace(CONFIG, epochs=1, learning_rate=1e-3))
    assert torch.equal(weights(other), weights(fresh))


def test_damaged_checkpoint_is_named(data: TrainingData, tmp_path: Path) -> None:
    run(data, tmp_path, replace(CONFIG, epochs=1))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"checkpoint\.safetensors: damaged"):
        run(data, tmp_path, replace(CONFIG, epochs=1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_no_number_stops(data: TrainingData, tmp_path: Path, value: float) -> None:
    class Broken(HardTargets):
        def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
            return super().loss(logits, frames) * value

        def to(self, device: torch.device) -> HardTargets:
            return self

    with pytest.raises(UserError, match="lower learning_rate"):
        run(data, tmp_path, replace(CONFIG, checkpoint_updates=1), targets=Broken(data.pdf_ids))
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_early_stopping_and_newbob(data: TrainingData, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=100, patience=3, schedule="newbob", newbob_gain=0.01, evaluate_updates=5)
    result = run(data, tmp_path, config)
    assert result.stopped_early and result.updates < 100 * 8
    assert result.updates == result.best_update + 3 * 5
    rates = [entry["learning_rate"] for entry in result.history]
    assert rates[-1] < rates[1]
    assert math.isclose(math.log2(rates[1] / rates[-1]), round(math.log2(rates[1] / rates[-1])))


def test_max_updates_and_no_heldout_frames(tmp_path: Path) -> None:
    store, alignment, cmvn = synthetic(utterances=3)
    data = TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0), CPU, left=3, right=1)
    result = run(data, tmp_path, replace(CONFIG, max_updates=17, batch=10_000))
    assert (result.updates, result.best_update) == (17, 17)
    assert math.isnan(result.accuracy)


def test_auto_precision_withstands_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes the cores for most looks at the faster format must not decide."""
    looks = {torch.float32: [200.0] * 8, torch.bfloat16: [90.0] * 7 + [420.0]}
    monkeypatch.setattr(precision, "PAUSE", 0.0)
    monkeypatch.setattr(precision, "matmul_rate", lambda device, dtype, *_, **__: looks[dtype].pop(0))
    precision._fastest.cache_clear()
    try:
        assert precision.choose_precision("auto", CPU).dtype is torch.bfloat16
    finally:
        precision._fastest.cache_clear()


def test_auto_precision_is_kept_when_a_run_goes_on(data: TrainingData, tmp_path: Path) -> None:
    chosen = precision.choose_precision("auto", CPU)
    assert chosen.rates["float32"] > 0 and chosen.rates["bfloat16"] > 0
    first = run(data, tmp_path, replace(CONFIG, epochs=1, precision="auto"))
    assert first.precision == chosen.name
    other = "float32" if first.precision == "bfloat16" else "bfloat16"
    again = run(data, tmp_path, replace(CONFIG, epochs=1, precision=other))  # type: ignore[arg-type]
    assert again.precision == first.precision


def test_auto_precision_is_settled_once_for_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Frames are held in a number format before the checkpoint is read: both must be of the first measurement."""
    measured = [torch.float32, torch.bfloat16]
    monkeypatch.setattr(precision, "_fastest", lambda device: precision.Precision(measured.pop(0), {}))
    for _ in range(2):  # the second is the run that goes on
        assert precision.settled(TrainerConfig(), CPU, tmp_path / "stage").precision == "float32"
    assert precision.settled(TrainerConfig(), CPU, tmp_path / "other").precision == "bfloat16"
    by_hand = TrainerConfig(precision="bfloat16")
    assert precision.settled(by_hand, CPU, tmp_path / "stage") is by_hand


def test_tensorboard_scalars(data: TrainingData, tmp_path: Path) -> None:
    result = run(data, tmp_path, replace(CONFIG, epochs=2, tensorboard=True))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = events.Scalars("heldout_accuracy")
    assert [s.step for s in scalars] == [entry["update"] for entry in result.history]
    assert scalars[-1].value == pytest.approx(result.history[-1]["heldout_accuracy"])
