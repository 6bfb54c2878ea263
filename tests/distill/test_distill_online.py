"""Teachers asked batch by batch against the same teachers asked about whole utterances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.trainer import train
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.losses import soft_cross_entropy
from asr_distill.distill.online import OnlineTargets, Runs, save_ensemble
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.distill.targets import SoftTargets
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures
from asr_distill.features.store import AdaptedFrames, FrameStore
from asr_distill.features.views import StoreViews

CPU = torch.device("cpu")
PDFS = 8
SHAPES = {
    "feed_forward": NetworkConfig(layers=1, width=16, left=3, right=2),
    "tdnn": NetworkConfig(kind="tdnn", layers=2, width=16, final=8, left=20, right=5, stride=3, norm="batch"),
    "attention": NetworkConfig(kind="attention", layers=1, width=16, heads=2, reach=2, final=8, left=20, right=5,
                               stride=2),
}
SETTINGS = SoftTargetConfig(temperature=2.0, top_k=0)


def teacher(shape: NetworkConfig, cmvn: Cmvn, seed: int = 0) -> AcousticModel:
    network = build_network(shape, cmvn.dimension, PDFS, seed=seed).eval()
    with torch.no_grad():
        network.output.weight.mul_(30)
    return AcousticModel(network, cmvn, log_priors_of(torch.ones(PDFS)), shape)


def batches(store: FrameStore) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = store.num_frames
    first = [int(store.offsets[2]) + 7, 3, int(store.offsets[4]) - 9, frames - 20]
    return {"single": torch.randperm(frames, generator=generator)[:50],
            "chunks": torch.cat([torch.arange(at, at + 20) for at in first]),
            "uneven": torch.cat([torch.arange(5, 90), torch.arange(200, 203), torch.tensor([31])])}


def whole(model: AcousticModel | Ensemble, store: FrameStore) -> torch.Tensor:
    return torch.cat([model.log_posteriors(store.features(index, CPU), 2.0)
                      for index in range(len(store.utterances))])


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("batch", ["single", "chunks", "uneven"])
def test_posteriors_are_those_of_whole_utterances(kind: str, batch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, cmvn = synthetic(pdfs=PDFS)
    model = teacher(SHAPES[kind], cmvn)
    frames = batches(store)[batch]
    targets = OnlineTargets(Ensemble([model]), store, SETTINGS, DistillConfig(hard_weight=0), None, CPU)
    expected = whole(model, store)[frames]
    torch.testing.assert_close(targets.log_posteriors(frames), expected, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr("asr_distill.distill.online.PIECE_ROWS", 64)  # several calls of the network
    torch.testing.assert_close(targets.log_posteriors(frames), expected, atol=1e-4, rtol=1e-4)


def test_runs_end_with_their_utterance() -> None:
    runs = Runs.of(np.array([8, 9, 10, 11, 3, 4, 4]), np.array([0, 10, 20]))
    assert runs.starts.tolist() == [8, 10, 3, 4] and runs.lengths.tolist() == [2, 2, 2, 1]
    assert runs.begins.tolist() == [0, 10, 0, 0] and runs.ends.tolist() == [10, 20, 10, 10]


class Echo:
    """A model of another kind."""

    num_pdfs, device = PDFS, CPU

    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        return torch.log_softmax(utterance.raw.repeat(1, 2)[:, :PDFS] / temperature, 1)


def test_ensembles_of_streams_weights_and_other_models(tmp_path: Path) -> None:
    """One teacher hears adapted frames, one log-mel, one is no network; weighted; noisy views have the clean rows."""
    store, _, cmvn = synthetic(pdfs=PDFS)
    random = np.random.default_rng(0)
    AdaptedFrames.write(tmp_path, random.normal(size=(store.num_frames, 4)).astype(np.float32))
    store.adapted = AdaptedFrames(tmp_path, store.num_frames)
    adapted = Cmvn("global", CmvnStats.of(np.asarray(store.adapted.frames)), stream="adapted")
    models = [teacher(SHAPES["tdnn"], adapted), teacher(SHAPES["feed_forward"], Cmvn("speaker", cmvn.train)), Echo()]
    ensemble = Ensemble(models, "geometric", (1.0, 2.0, 0.5))
    noisy, _, _ = synthetic(pdfs=PDFS, noise=1.5)
    views = StoreViews([store, noisy])
    pdf_ids = torch.randint(0, PDFS, (views.num_frames,))
    targets = OnlineTargets(ensemble, store, SETTINGS, DistillConfig(), pdf_ids, CPU, rows=views.rows).to(CPU)
    frames = batches(store)["chunks"] + store.num_frames
    expected = whole(ensemble, store)[frames - store.num_frames]
    torch.testing.assert_close(targets.log_posteriors(frames), expected, atol=1e-4, rtol=1e-4)
    logits = torch.randn(len(frames), PDFS, requires_grad=True)
    loss = targets.loss(logits, frames)
    torch.testing.assert_close(loss, soft_cross_entropy(logits, expected.exp(), 2.0, pdf_ids=pdf_ids[frames],
                                                        hard_weight=0.5), atol=1e-4, rtol=1e-4)
    loss.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("chunk", [1, 12])
def test_the_student_is_the_one_of_stored_targets(tmp_path: Path, chunk: int) -> None:
    store, alignment, cmvn = synthetic(pdfs=PDFS, utterances=16)
    ensemble = Ensemble([teacher(SHAPES["tdnn"], cmvn), teacher(SHAPES["feed_forward"], cmvn, 1)])
    shape = NetworkConfig(layers=1, width=24, left=2, right=2)
    data = TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0.2), CPU, left=2, right=2)
    trainer = TrainerConfig(batch=96, chunk=chunk, epochs=4, warmup_updates=5, learning_rate=5e-3, precision="float32",
                            tensorboard=False)
    write_soft_targets(ensemble, store, tmp_path / "soft", replace(SETTINGS, form="dense"), CPU)
    save_ensemble(ensemble, tmp_path / "teachers")
    loss = DistillConfig(hard_weight=0.5)
    found = []
    for name, targets in (
            ("stored", SoftTargets.open(tmp_path / "soft", loss, data.pdf_ids)),
            ("online", OnlineTargets.open(tmp_path / "teachers", store, SETTINGS, loss, data.pdf_ids, CPU))):
        network = build_network(shape, 6, PDFS, seed=3)
        found.append(train(network, data, targets, trainer, seed=3, work=tmp_path / name, device=CPU))
    stored, online = found
    assert stored.accuracy == pytest.approx(online.accuracy, abs=0.01)
    assert stored.cross_entropy == pytest.approx(online.cross_entropy, abs=2e-3)
    for ours, theirs in zip(stored.network.parameters(), online.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=1e-2)


def test_mistakes_are_named(tmp_path: Path) -> None:
    store, _, cmvn = synthetic(pdfs=PDFS)
    ensemble = Ensemble([teacher(SHAPES["feed_forward"], cmvn)])
    with pytest.raises(ValueError, match="needs pdf_ids"):
        OnlineTargets(ensemble, store, SETTINGS, DistillConfig(), None, CPU)
    with pytest.raises(UserError, match="align this store again"):
        OnlineTargets(ensemble, store, SETTINGS, DistillConfig(), torch.zeros(3), CPU)
    with pytest.raises(UserError, match="teacher 1 is no network of this package"):
        save_ensemble(Ensemble([Echo()]), tmp_path)
    with pytest.raises(UserError, match=r"ensemble\.json: no such file"):
        OnlineTargets.open(tmp_path, store, SETTINGS, DistillConfig(hard_weight=0), None, CPU)
    targets = OnlineTargets(ensemble, store, SETTINGS, DistillConfig(hard_weight=0), None, CPU)
    with pytest.raises(ValueError, match="these teachers are on cpu, not on meta"):
        targets.to(torch.device("meta"))
