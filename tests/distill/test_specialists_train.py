"""What a specialist starts from, what it is shown, and that its correction gives the true posteriors back."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import store_of, synthetic
from specialists_world import CPU, SETS, confusable, generalist, train_specialists, training_data

from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.sampling import sampler_for
from asr_distill.distill.specialists.clusters import ClusterResult
from asr_distill.distill.specialists.config import Dustbin
from asr_distill.distill.specialists.mix import SpecialistTargets, specialist_mix
from asr_distill.distill.specialists.specialist import Facts, Specialist, initial_weights
from asr_distill.distill.specialists.train import load_specialists
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, CmvnStats
from asr_distill.hmm.align import Alignment

TRAINER = TrainerConfig(batch=64, learning_rate=1e-2, warmup_updates=5, max_updates=40, tensorboard=False,
                        precision="float32")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """8 senones; an utterance and single frames that are not aligned."""
    store, alignment, cmvn = synthetic(utterances=30, frames=50, unaligned=(2,))
    pdf_ids = alignment.pdf_ids.copy()
    pdf_ids[::11] = -1
    return TrainingData.build(store, dataclasses.replace(alignment, pdf_ids=pdf_ids), cmvn,
                              DataConfig(heldout_fraction=0.2), CPU, left=4, right=4)


def random_model(kind: str = "feed_forward", seed: int = 0) -> AcousticModel:
    network = build_network(KINDS[kind], 6, 8, seed=seed).eval()
    torch.nn.init.normal_(network.output.weight, generator=torch.Generator().manual_seed(seed))
    torch.nn.init.normal_(network.output.bias, generator=torch.Generator().manual_seed(seed))
    stats = CmvnStats.of(np.random.default_rng(0).normal(size=(100, 6)))
    log_priors = torch.log_softmax(torch.randn(8, generator=torch.Generator().manual_seed(seed)), 0)
    return AcousticModel(network, Cmvn("global", stats), log_priors, KINDS[kind])


def specialist_of(model: AcousticModel, senones: tuple[int, ...], correction: float) -> Specialist:
    network = build_network(model.config, 6, len(senones) + 1)
    network.load_state_dict(initial_weights(model, Facts(senones, correction)))
    return Specialist(dataclasses.replace(model, network=network.eval()), senones, correction)


@pytest.mark.parametrize("kind", ["feed_forward", "tdnn_stride"])
def test_starts_as_the_generalist(kind: str, data: TrainingData) -> None:
    """Where the other senones cannot be told apart the start is exact; the correction changes nothing yet."""
    model = random_model(kind)
    others = [0, 2, 4, 6, 7]
    with torch.no_grad():
        model.network.output.weight[others] = model.network.output.weight[0].clone()
        model.network.output.bias[others] = model.network.output.bias[0].clone()
    model = dataclasses.replace(model, log_priors=torch.full((8,), -math.log(8)))
    store, _, _ = synthetic(utterances=2, frames=50)
    rows = torch.tensor([0, 3, 4, 30, 49])
    posteriors = model.log_posteriors(store.features(0, CPU))[rows].exp()
    found = specialist_of(model, (1, 3, 5), 1.7).log_posteriors(store.features(0, CPU), rows).exp()
    np.testing.assert_allclose(found[:, :3], posteriors[:, [1, 3, 5]], atol=1e-6)
    np.testing.assert_allclose(found[:, 3], posteriors[:, others].sum(1), atol=1e-6)


@pytest.mark.parametrize("kind", ["feed_forward", "tdnn_stride"])
def test_a_summed_dustbin_starts_exactly_as_the_generalist(kind: str, data: TrainingData, tmp_path: Path) -> None:
    """Whatever the other senones; saved and loaded too; and its first loss is that of the generalist on the mix."""
    model, senones, others = random_model(kind), (1, 3, 5), [0, 2, 4, 6, 7]
    store, _, _ = synthetic(utterances=2, frames=50)
    rows = torch.tensor([0, 3, 4, 30, 49])
    posteriors = model.log_posteriors(store.features(0, CPU))[rows].exp()
    facts = Facts(senones, 1.7, "sum", 8)
    network = build_network(model.config, 6, 4)
    facts.change()(network)  # type: ignore[misc]
    network.load_state_dict(initial_weights(model, facts))
    specialist = Specialist(dataclasses.replace(model, network=network.eval()), senones, 1.7)
    specialist.save(tmp_path)
    for each in (specialist, Specialist.load(tmp_path, CPU)):
        found = each.log_posteriors(store.features(0, CPU), rows).exp()
        np.testing.assert_allclose(found[:, :3], posteriors[:, senones], atol=1e-6)
        np.testing.assert_allclose(found[:, 3], posteriors[:, others].sum(1), atol=1e-6)
        assert each.dustbin == "sum" and each.fingerprint() == specialist.fingerprint()
    mixed = torch.cat([posteriors[:, senones], posteriors[:, others].sum(1, keepdim=True) / math.exp(1.7)], 1)
    under_mix = specialist.model.log_posteriors(store.features(0, CPU))[rows].exp()
    np.testing.assert_allclose(under_mix, mixed / mixed.sum(1, keepdim=True), atol=1e-6)


def test_damaged_facts(tmp_path: Path) -> None:
    for text in ('{"senones": [1]}', '{"senones": [1, 2], "correction": 0, "dustbin": "heap", "pdfs": 8}',
                 '{"senones": [1, 2], "correction": 0, "dustbin": "sum", "pdfs": 2}'):
        (tmp_path / "specialist.json").write_text(text)
        with pytest.raises(UserError, match="train the specialist again"):
            Facts.read(tmp_path)


def test_dustbin_starts_below_the_others_mass() -> None:
    """Jensen's bound, and nearer to the mass with the senones' priors than with equal ones."""
    model = random_model()
    store, _, _ = synthetic(utterances=2, frames=50)
    features, rows, others = store.features(0, CPU), torch.arange(50), [0, 2, 3, 4, 6]
    exact = torch.logsumexp(model.logits(features)[:50][:, others], 1)
    # priors that follow the model's own mean posteriors, as those of a trained one do
    model = dataclasses.replace(model, log_priors=model.log_posteriors(features).exp().mean(0).log())
    equal = dataclasses.replace(model, log_priors=torch.zeros(8))
    gaps = []
    for start in (model, equal):
        network = specialist_of(start, (1, 5, 7), 0.0).model
        gaps.append(exact - network.logits(features)[rows][:, -1])
        assert (gaps[-1] > -1e-5).all()
    assert gaps[0].mean() < gaps[1].mean()


def test_the_mix(data: TrainingData) -> None:
    pdf_ids = data.pdf_ids.numpy()
    mix = specialist_mix(data, (2, 5), 0.5, seed=3)
    train = mix.data.train.numpy()
    special = np.isin(pdf_ids, (2, 5))
    wanted = data.train.numpy()
    assert set(wanted[special[wanted]]) <= set(train) <= set(wanted)  # all of the set, nothing that was held out
    assert len(train) == len(set(train)) and (np.diff(train) > 0).all()
    assert mix.special == special[train].sum() == mix.rest == (~special[train]).sum()
    assert mix.correction == pytest.approx(np.log((~special[wanted]).sum() / mix.rest))
    expected = np.select([pdf_ids < 0, pdf_ids == 2, pdf_ids == 5], [-1, 0, 1], 2)
    np.testing.assert_array_equal(mix.data.pdf_ids, expected)
    assert mix.data.num_pdfs == 3
    held = mix.data.heldout.numpy()
    assert set(held) <= set(data.heldout.numpy()) and not set(held) & set(train)
    assert special[held].sum() == special[data.heldout.numpy()].sum()
    rate = math.exp(mix.correction)
    assert (~special[held]).sum() == round((~special[data.heldout.numpy()]).sum() / rate)


def test_the_draw_depends_on_the_seed_alone(data: TrainingData) -> None:
    def frames(seed: int) -> list[int]:
        return specialist_mix(data, (2, 5), 0.5, seed).data.train.tolist()

    assert frames(1) == frames(1) != frames(2)


def test_scarce_rest_and_other_shares(data: TrainingData) -> None:
    special = len(specialist_mix(data, (0, 1, 2, 3, 4, 5, 6), 0.5, 0).data.train)
    mix = specialist_mix(data, (0, 1, 2, 3, 4, 5, 6), 0.5, 0)
    assert mix.correction == 0 and special == len(data.train)  # fewer others than of the set: all are kept
    mix = specialist_mix(data, (1,), 0.25, 0)
    assert mix.rest == 3 * mix.special


def test_frames_without_a_senone_are_left_out(data: TrainingData) -> None:
    """A transfer set's: trained on by students of soft targets, of no use to a specialist."""
    everything = dataclasses.replace(data, train=torch.arange(data.num_frames), heldout=data.train[:0])
    mix = specialist_mix(everything, (2, 5), 0.5, 0)
    assert (data.pdf_ids[mix.data.train] >= 0).all()
    assert mix.special == int(((data.pdf_ids == 2) | (data.pdf_ids == 5)).sum())


def test_sets_without_or_with_all_frames(data: TrainingData) -> None:
    with pytest.raises(UserError, match="every frame"):
        specialist_mix(data, tuple(range(8)), 0.5, 0)
    gone = dataclasses.replace(data, pdf_ids=torch.where(data.pdf_ids == 3, 2, data.pdf_ids))
    with pytest.raises(UserError, match="no frame"):
        specialist_mix(gone, (3,), 0.5, 0)


@pytest.mark.parametrize("dustbin", ["sum", "unit"])
def test_corrected_posteriors_are_the_true_ones(dustbin: Dustbin, tmp_path: Path) -> None:
    """Four kinds of frames with known p(senone | frame): a softmax on them learns the mix, the correction undoes it."""
    random = np.random.default_rng(0)
    truth = random.dirichlet(np.full(6, 0.7), 4)  # (kinds, senones)
    kinds = random.integers(0, 4, 40_000)
    labels = (random.random(40_000)[:, None] > truth[kinds].cumsum(1)).sum(1).clip(max=5).astype(np.int32)
    counted = np.stack([np.bincount(labels[kinds == kind], minlength=6) for kind in range(4)])
    truth = counted / counted.sum(1, keepdims=True)  # of this sample: what is left is the draw's noise
    store = store_of(list(np.eye(4)[kinds].reshape(40, 1000, 4)))
    zeros = np.zeros(40_000, np.int16)
    alignment = Alignment(labels, zeros, zeros.astype(np.int8), np.ones(40, bool), 6)
    cmvn = Cmvn("global", store.total_stats)
    data = TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0), CPU, left=0, right=0)
    shape = NetworkConfig(layers=0, left=0, right=0)
    model = AcousticModel(build_network(shape, 4, 6).eval(), cmvn, torch.full((6,), -math.log(6)), shape)
    clusters = ClusterResult(((1, 4),), 6, {})
    trainer = dataclasses.replace(TRAINER, batch=2048, max_updates=150, learning_rate=0.1)
    figures = train_specialists(model, clusters, data, trainer, out=tmp_path, dustbin=dustbin)
    (specialist,) = load_specialists(tmp_path, CPU)
    assert figures["specialist1"]["correction"] == specialist.correction > 0.5
    features = dataclasses.replace(store.features(0, CPU), raw=torch.eye(4))
    expected = np.concatenate([truth[:, [1, 4]], np.delete(truth, [1, 4], 1).sum(1, keepdims=True)], 1)
    found = specialist.log_posteriors(features, torch.arange(4)).exp().numpy()
    assert np.abs(found - expected).max() < 0.02
    uncorrected = specialist.model.log_posteriors(features).exp().numpy()
    assert np.abs(uncorrected - expected).max() > 0.08


@pytest.mark.parametrize("kind, chunk, dustbin", [
    ("feed_forward", 1, "sum"), ("feed_forward", 1, "unit"), ("tdnn_stride", 12, "sum")])
def test_goes_on_and_skips_what_is_complete(kind: str, chunk: int, dustbin: Dustbin, data: TrainingData,
                                            tmp_path: Path) -> None:
    model, clusters = random_model(kind), ClusterResult(((1, 3), (0, 2, 5)), 8, {})
    trainer = dataclasses.replace(TRAINER, chunk=chunk, max_updates=8)

    def weights() -> list[torch.Tensor]:
        return [value for one in load_specialists(tmp_path, CPU) for value in one.model.network.state_dict().values()]

    figures = train_specialists(model, clusters, data, trainer, out=tmp_path, dustbin=dustbin)
    first = weights()
    assert figures.keys() == {"specialist1", "specialist2"} and figures["specialist2"]["senones"] == 3
    (tmp_path / "specialist2" / "training.json").unlink()
    (tmp_path / "specialist2" / "work" / "best.safetensors").unlink()
    complete = (tmp_path / "specialist1" / "weights.safetensors").stat().st_mtime_ns
    again = train_specialists(model, clusters, data, trainer, out=tmp_path, dustbin=dustbin)
    assert (tmp_path / "specialist1" / "weights.safetensors").stat().st_mtime_ns == complete
    assert all(torch.equal(a, b) for a, b in zip(first, weights(), strict=True))
    assert again["specialist1"] == figures["specialist1"]
    with pytest.raises(UserError, match="another set"):
        train_specialists(model, ClusterResult(((1, 4), (0, 2, 5)), 8, {}), data, trainer, out=tmp_path,
                          dustbin=dustbin)


def test_chunks_count_the_mix_alone(data: TrainingData) -> None:
    """Every frame of the mix once an epoch; batches without any have a loss of 0 and a gradient."""
    mix = specialist_mix(data, (6,), 0.5, 0)
    few = dataclasses.replace(mix.data, train=mix.data.train[::9])
    network = build_network(KINDS["tdnn_stride"], 6, 2).eval()  # no batch statistics of one chunk
    targets = SpecialistTargets(few.pdf_ids)
    sampler = sampler_for(network, few, 3, 3, torch.float32, 0)
    frames, empty = [], 0
    for update in range(sampler.epoch_updates):
        batch = sampler.batch(update)
        frames += batch.frames.tolist()
        if not len(batch.frames):
            empty += 1
            loss = targets.loss(network(batch.windows, batch.rows), batch.frames)
            loss.backward()
            assert loss == 0 and not network.output.weight.grad.any()
    assert sorted(frames) == few.train.tolist() and empty


def test_wrong_tree(data: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one tree"):
        train_specialists(random_model(), ClusterResult(((1, 3),), 9, {}), data, TRAINER, out=tmp_path)
    with pytest.raises(UserError, match="no specialists"):
        load_specialists(tmp_path, CPU)


def test_specialists_know_their_sets_better(tmp_path: Path) -> None:
    """Within each set a specialist of the narrow generalist's shape is right more often than the generalist is."""
    store, alignment = confusable(20, 0)
    held, held_alignment = confusable(10, 1)
    data, cmvn = training_data(store, alignment)
    model = generalist(data, cmvn, tmp_path / "generalist")
    trainer = dataclasses.replace(TRAINER, max_updates=150)
    train_specialists(model, ClusterResult(SETS, 16, {}), data, trainer, out=tmp_path)
    right = np.zeros(2)
    frames = 0
    for index in range(10):
        labels = held_alignment.pdf_ids[held.offsets[index]:held.offsets[index + 1]]
        general = model.log_posteriors(held.features(index, CPU)).numpy()
        for specialist in load_specialists(tmp_path, CPU):
            rows = np.flatnonzero(np.isin(labels, specialist.senones))
            own = specialist.log_posteriors(held.features(index, CPU), torch.from_numpy(rows)).numpy()
            members = np.array(specialist.senones)
            right += [(members[scores.argmax(1)] == labels[rows]).sum()
                      for scores in (general[rows][:, members], own[:, :-1])]
            frames += len(rows)
    assert right[1] / frames > right[0] / frames + 0.03
