"""Generalist and specialists as one model: limits, temperature, files, and the table of what they bring."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_stand_ins import synthetic
from specialists_world import CPU, PDFS, confusable, generalist, train_specialists, training_data

from asr_distill.acoustic.accuracy import frame_accuracy
from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.together import posteriors_together
from asr_distill.distill.fingerprint import fingerprint_of
from asr_distill.distill.specialists import coverage
from asr_distill.distill.specialists.clusters import cluster_store
from asr_distill.distill.specialists.combine import Groups, combine
from asr_distill.distill.specialists.config import SetConfig
from asr_distill.distill.specialists.coverage import CoverageRow, coverage_counts, coverage_text
from asr_distill.distill.specialists.model import GeneralistWithSpecialists, load_combined
from asr_distill.distill.specialists.specialist import Specialist
from asr_distill.emission import EmissionModel
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, UtteranceFeatures
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment

SETS = ((0, 1, 2), (2, 3, 4, 5))  # 6 and 7 in none, 2 in both
STORE, ALIGNMENT, CMVN = synthetic(utterances=6, frames=50, seed=4)


def random_model(pdfs: int, seed: int, kind: str = "feed_forward") -> AcousticModel:
    config = (NetworkConfig(layers=1, width=16, left=2, right=1) if kind == "feed_forward" else
              NetworkConfig(kind="tdnn", layers=1, width=16, final=8, stride=3))
    network = build_network(config, 6, pdfs, seed=seed).eval()
    torch.nn.init.normal_(network.output.weight, generator=torch.Generator().manual_seed(seed))
    return AcousticModel(network, CMVN, torch.full((pdfs,), 1 / pdfs).log(), config)


def random_specialists(kind: str = "feed_forward") -> list[Specialist]:
    return [Specialist(random_model(len(members) + 1, 10 + number, kind), members, 0.5 * number)
            for number, members in enumerate(SETS)]


ENSEMBLE = Ensemble([random_model(8, 0), random_model(8, 1)])


@pytest.mark.parametrize("kind", ["feed_forward", "tdnn"])
@pytest.mark.parametrize("top", [1, 3])
def test_active_specialists_are_combined(kind: str, top: int) -> None:
    """Frame by frame, from whole matrices of the specialists' posteriors."""
    model, specialists = random_model(8, 0), random_specialists(kind)
    combined = GeneralistWithSpecialists(model, specialists, top)
    assert isinstance(combined, EmissionModel) and combined.coverage.tolist() == [1, 1, 2, 1, 1, 1, 0, 0]
    features = STORE.features(1, CPU)
    general, found = model.log_posteriors(features), combined.log_posteriors(features)
    seen = set()
    for frame, scores in enumerate(general):
        best = set(scores.argsort(descending=True)[:top].tolist())
        active = torch.tensor([[bool(best & set(members)) for members in SETS]])
        seen.add(tuple(active[0].tolist()))
        mass, dustbins = scores.exp(), []
        for specialist, on in zip(specialists, active[0], strict=True):
            logits = specialist.model.logits(features)[frame].clone()
            logits[-1] += specialist.correction
            posteriors = logits.softmax(0)
            dustbins.append(float(posteriors[-1]))
            if on:
                mass[list(specialist.senones)] += posteriors[:-1]
        expected = combine(mass.log()[None], torch.tensor([dustbins], dtype=torch.float64), active,
                           Groups.of(SETS, 8, CPU))
        torch.testing.assert_close(found[frame], expected[0], atol=1e-4, rtol=0)
    assert len(seen) > 1
    torch.testing.assert_close(combined.log_likelihoods(features), found - model.log_priors)


@pytest.mark.parametrize("general", [random_model(8, 0), ENSEMBLE], ids=["network", "ensemble"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_without_active_specialists_it_is_the_generalist(general: AcousticModel | Ensemble, temperature: float) -> None:
    features = STORE.features(0, CPU)
    expected = general.log_posteriors(features, temperature)
    alone = GeneralistWithSpecialists(general, [])
    torch.testing.assert_close(alone.log_posteriors(features, temperature), expected)
    combined = GeneralistWithSpecialists(general, random_specialists())
    idle = ~combined.active(general.log_posteriors(features)).any(1)
    assert idle.any() and not idle.all()
    torch.testing.assert_close(combined.log_posteriors(features, temperature)[idle], expected[idle])


def test_temperature_tempers_q() -> None:
    combined = GeneralistWithSpecialists(random_model(8, 0), random_specialists())
    features = STORE.features(0, CPU)
    expected = torch.log_softmax(combined.log_posteriors(features) / 4, 1)
    torch.testing.assert_close(combined.log_posteriors(features, 4.0), expected, atol=1e-5, rtol=0)


def test_equal_specialists_change_nothing_at_any_temperature() -> None:
    """Specialists that give the generalist's own posteriors, their dustbin the sum of the others'."""
    model = random_model(8, 0)

    class Same(Specialist):
        def log_posteriors(self, utterance: UtteranceFeatures, rows: torch.Tensor) -> torch.Tensor:
            scores = model.log_posteriors(utterance)[rows]
            others = [pdf for pdf in range(8) if pdf not in self.senones]
            return torch.cat([scores[:, list(self.senones)], scores[:, others].logsumexp(1, keepdim=True)], 1)

    combined = GeneralistWithSpecialists(
        model, [Same(random_model(len(members) + 1, 0), members, 0.0) for members in SETS])
    for temperature in (1.0, 5.0):
        found = combined.log_posteriors(STORE.features(0, CPU), temperature)
        torch.testing.assert_close(found, model.log_posteriors(STORE.features(0, CPU), temperature), atol=1e-4, rtol=0)


@pytest.mark.parametrize("general", [random_model(8, 0), Ensemble([random_model(8, 0), random_model(8, 1)],
                                                                  "geometric", (1.0, 3.0))])
def test_files(general: AcousticModel | Ensemble, tmp_path: Path) -> None:
    combined = GeneralistWithSpecialists(general, random_specialists(), 2)
    combined.save(tmp_path)
    loaded = GeneralistWithSpecialists.load(tmp_path, CPU)
    for temperature in (1.0, 2.0):
        assert torch.equal(loaded.log_posteriors(STORE.features(0, CPU), temperature),
                           combined.log_posteriors(STORE.features(0, CPU), temperature))
    assert torch.equal(loaded.log_priors, combined.log_priors)
    assert fingerprint_of(loaded) == fingerprint_of(combined)
    others = [GeneralistWithSpecialists(general, random_specialists(), 1),
              GeneralistWithSpecialists(general, random_specialists()[:1], 2),
              GeneralistWithSpecialists(random_model(8, 2), random_specialists(), 2)]
    assert len({fingerprint_of(model) for model in [combined, *others]}) == 4
    from_training = load_combined(general, tmp_path, 2)
    assert fingerprint_of(from_training) == fingerprint_of(combined)


def test_damaged_files(tmp_path: Path) -> None:
    GeneralistWithSpecialists(random_model(8, 0), random_specialists()).save(tmp_path)
    specialist = tmp_path / "specialist2" / "specialist.json"
    right = specialist.read_text()
    for text in ('{"senones": [1], "correction": 0}', '{"senones": [2, 3, 4, 50], "correction": 0}', "{}", "["):
        specialist.write_text(text)
        with pytest.raises(UserError):
            GeneralistWithSpecialists.load(tmp_path, CPU)
        with pytest.raises(UserError):
            load_combined(random_model(8, 0), tmp_path)
    specialist.write_text(right)
    (tmp_path / "combined.json").write_text(json.dumps({"networks": 1}))
    with pytest.raises(UserError, match="damaged"):
        GeneralistWithSpecialists.load(tmp_path, CPU)


def test_bfloat16_networks() -> None:
    combined = GeneralistWithSpecialists(random_model(8, 0), random_specialists())
    found = combined.cast(torch.bfloat16).log_posteriors(STORE.features(0, CPU))
    assert found.dtype == torch.float32
    errors = (found.exp() - combined.log_posteriors(STORE.features(0, CPU)).exp()).abs()
    assert errors.median() < 0.01  # a frame's active specialists may be others: bfloat16 changes a near tie


@pytest.mark.parametrize("kind", ["feed_forward", "tdnn"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_several_utterances_at_once(kind: str, temperature: float) -> None:
    other = random_model(3, 30, kind)  # hears other than the generalist does
    own = Cmvn("online", CMVN.train)
    specialists = [*random_specialists(kind), Specialist(dataclasses.replace(other, cmvn=own), (3, 7), 0.3)]
    for generalist_model in (random_model(8, 0, kind), ENSEMBLE):
        combined = GeneralistWithSpecialists(generalist_model, specialists, 2)
        features = [STORE.features(index, CPU) for index in (0, 3, 5)]
        alone = torch.cat([combined.log_posteriors(each, temperature) for each in features])
        torch.testing.assert_close(posteriors_together(combined, features, temperature), alone, atol=1e-4, rtol=0)


def table(general: AcousticModel, combined: GeneralistWithSpecialists, store: FrameStore, alignment: Alignment,
          utterances: list[int] | None = None, resamples: int = 500) -> list[CoverageRow]:
    counts = coverage_counts({"generalist": general, "combined": combined}, combined.coverage, store, alignment,
                             utterances)
    return counts.table("generalist", "combined", resamples=resamples)


def test_coverage_by_counting() -> None:
    general = random_model(8, 0)
    combined = GeneralistWithSpecialists(general, random_specialists())
    pdf_ids = ALIGNMENT.pdf_ids.copy()
    pdf_ids[::7] = -1
    alignment = dataclasses.replace(ALIGNMENT, pdf_ids=pdf_ids)
    rows = table(general, combined, STORE, alignment, [0, 2, 3, 5], resamples=200)
    assert [row.covering for row in rows] == [0, 1, 2, None]
    for row in rows:
        frames = right = combined_right = 0
        for index in (0, 2, 3, 5):
            labels = pdf_ids[STORE.offsets[index]:STORE.offsets[index + 1]]
            scores = [model.log_posteriors(STORE.features(index, CPU)).argmax(1).tolist()
                      for model in (general, combined)]
            for label, one, two in zip(labels, *scores, strict=True):
                covering = sum(int(label) in members for members in SETS)
                if label >= 0 and row.covering in (None, covering):
                    frames, right, combined_right = frames + 1, right + (one == label), combined_right + (two == label)
        assert (row.frames, row.reference_correct, row.system_correct) == (frames, right, combined_right)
        assert row.reference_accuracy == pytest.approx(right / frames)
        assert row.difference == pytest.approx((combined_right - right) / frames)
        assert row.relative_change == (pytest.approx((combined_right - right) / right) if right else None)
        assert row.difference_low <= row.difference <= row.difference_high
    accuracy = frame_accuracy(combined, STORE, alignment, [0, 2, 3, 5]).accuracy
    assert accuracy == pytest.approx(rows[-1].system_accuracy)
    lines = coverage_text(rows).splitlines()
    assert len(lines) == 5 and lines[-1].split()[:2] == ["all", str(rows[-1].frames)]
    assert f"{100 * rows[1].system_accuracy:.2f}%" in lines[2]


def test_interval_is_that_of_a_sampling_by_hand() -> None:
    general, combined = random_model(8, 0), GeneralistWithSpecialists(random_model(8, 0), random_specialists())
    row = table(general, combined, STORE, ALIGNMENT, resamples=20_000)[-1]
    gains, frames = np.zeros(6), np.diff(STORE.offsets)
    for index in range(6):
        labels = torch.from_numpy(ALIGNMENT.pdf_ids[STORE.offsets[index]:STORE.offsets[index + 1]])
        for sign, model in ((-1, general), (1, combined)):
            gains[index] += sign * int((model.log_posteriors(STORE.features(index, CPU)).argmax(1) == labels).sum())
    drawn = np.random.default_rng(9).integers(0, 6, (20_000, 6))
    low, high = np.percentile(gains[drawn].sum(1) / frames[drawn].sum(1), [2.5, 97.5])
    assert row.difference_low == pytest.approx(low, abs=3e-3) and row.difference_high == pytest.approx(high, abs=3e-3)


def test_interval_over_speakers() -> None:
    """All utterances of one speaker: nothing is left to draw. Each a speaker of its own: that over utterances."""
    general, combined = random_model(8, 0), GeneralistWithSpecialists(random_model(8, 0), random_specialists())
    counts = coverage_counts({"a": general, "b": combined}, combined.coverage, STORE, ALIGNMENT)
    assert counts.speakers == tuple(utterance.speaker for utterance in STORE.utterances)
    row = dataclasses.replace(counts, speakers=("one",) * 6).table("a", "b", resamples=500)[-1]
    assert row.speaker_low == row.speaker_high == pytest.approx(row.difference)
    assert row.difference_low < row.difference < row.difference_high
    row = dataclasses.replace(counts, speakers=tuple("abcdef")).table("a", "b", resamples=500)[-1]
    assert (row.speaker_low, row.speaker_high) == (row.difference_low, row.difference_high)


def test_the_same_counts_from_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where utterances are asked together."""
    models = {"a": random_model(8, 0), "b": GeneralistWithSpecialists(random_model(8, 0), random_specialists())}
    alone = coverage_counts(models, models["b"].coverage, STORE, ALIGNMENT, [0, 2, 3, 5])
    monkeypatch.setattr(coverage, "groups", lambda lengths, device: [range(0, 3), range(3, len(lengths))])
    together = coverage_counts(models, models["b"].coverage, STORE, ALIGNMENT, [0, 2, 3, 5])
    assert (together.counts == alone.counts).all()


def test_tables_of_any_pair() -> None:
    general, combined = random_model(8, 0), GeneralistWithSpecialists(random_model(8, 0), random_specialists())
    counts = coverage_counts({"a": general, "b": combined, "c": ENSEMBLE}, combined.coverage, STORE, ALIGNMENT)
    one, two, three = (counts.table(*pair, resamples=300) for pair in (("a", "b"), ("b", "c"), ("a", "c")))
    for first, second, whole in zip(one, two, three, strict=True):
        assert first.system_correct == second.reference_correct and second.system_correct == whole.system_correct
        assert first.difference + second.difference == pytest.approx(whole.difference)


def test_another_stores_alignment() -> None:
    general, combined = random_model(8, 0), GeneralistWithSpecialists(random_model(8, 0), random_specialists())
    with pytest.raises(UserError, match="align again"):
        table(general, combined, STORE, synthetic(utterances=5, frames=50)[1])
    nothing = dataclasses.replace(ALIGNMENT, pdf_ids=np.full_like(ALIGNMENT.pdf_ids, -1))
    with pytest.raises(UserError, match="no aligned frame"):
        table(general, combined, STORE, nothing)


def test_from_store_to_table(tmp_path: Path) -> None:
    """All of it on confusable senones: sets, specialists, and more frames right than the narrow generalist has."""
    store, alignment = confusable(20, 0)
    data, cmvn = training_data(store, alignment)
    model = generalist(data, cmvn, tmp_path / "generalist")
    config = SetConfig(specialists=4)
    clusters = cluster_store(model, store, config, tmp_path)
    trainer = TrainerConfig(batch=64, learning_rate=1e-2, warmup_updates=5, max_updates=150, tensorboard=False,
                            precision="float32")
    train_specialists(model, clusters, data, trainer, out=tmp_path)
    combined = load_combined(model, tmp_path)
    rows = table(model, combined, *confusable(20, 1))
    assert [row.covering for row in rows] == [1, None] and rows[-1].frames == 1200
    assert rows[-1].difference > 0.02 and rows[-1].difference_low > 0
    assert clusters.num_pdfs == PDFS


def test_senones_must_be_the_generalists() -> None:
    with pytest.raises(ValueError, match="beyond"):
        GeneralistWithSpecialists(random_model(4, 0), random_specialists())
    with pytest.raises(ValueError, match="outputs"):
        Specialist(random_model(4, 0), (1, 2), 0.0)


