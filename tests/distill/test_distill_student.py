"""A student learns from its teachers, with the teachers' own trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.accuracy import frame_accuracy
from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.targets import HardTargets, Targets
from asr_distill.acoustic.trainer import train
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.online import OnlineTargets
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.distill.targets import SoftTargets
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn

CPU = torch.device("cpu")
PDFS, NOISE = 24, 2.5
SPLIT = DataConfig(heldout_fraction=0.1)
CONTEXT = {"left": 3, "right": 3}
CONFIG = TrainerConfig(batch=128, warmup_updates=20, learning_rate=3e-3, precision="float32", max_updates=300,
                       evaluate_updates=300, tensorboard=False)  # the last weights: no help from early stopping


def trained(data: TrainingData, cmvn: Cmvn, targets: Targets, shape: NetworkConfig, seed: int,
            work: Path) -> AcousticModel:
    network = build_network(shape, data.num_coefficients, data.num_pdfs, seed=seed)
    train(network, data, targets, CONFIG, seed=seed, work=work, device=CPU)
    return AcousticModel(network, cmvn, log_priors_of(data.pdf_frequencies()), shape)


@pytest.mark.parametrize("temperature, top_k", [(1.0, 0), (2.0, 8)])
def test_soft_targets_beat_hard_ones_on_few_labels(tmp_path: Path, temperature: float, top_k: int) -> None:
    """Paper, section 6: on little data hard targets overfit; an ensemble of much data passes on what it saw."""
    store, alignment, cmvn = synthetic(utterances=60, pdfs=PDFS, noise=NOISE, seed=1)
    test_store, test_alignment, _ = synthetic(utterances=20, pdfs=PDFS, noise=NOISE, seed=2)
    much = TrainingData.build(store, alignment, cmvn, SPLIT, CPU, **CONTEXT)
    few = TrainingData.build(store, alignment, cmvn, replace(SPLIT, train_fraction=0.1), CPU, **CONTEXT)
    wide, small = NetworkConfig(layers=1, width=64, left=3, right=3), NetworkConfig(layers=1, width=24, left=3, right=3)
    hard = HardTargets(much.pdf_ids)
    teachers = Ensemble([trained(much, cmvn, hard, wide, seed, tmp_path / f"teacher{seed}") for seed in range(2)])
    write_soft_targets(teachers, store, tmp_path / "soft", SoftTargetConfig(temperature=temperature, top_k=top_k), CPU)
    soft = SoftTargets.open(tmp_path / "soft", DistillConfig(hard_weight=0.5), much.pdf_ids)
    baseline = trained(few, cmvn, hard, small, 7, tmp_path / "baseline")
    student = trained(few, cmvn, soft, small, 7, tmp_path / "student")
    scores = {name: frame_accuracy(model, test_store, test_alignment)
              for name, model in (("teachers", teachers), ("baseline", baseline), ("student", student))}
    assert scores["student"].accuracy > scores["baseline"].accuracy + 0.01
    assert scores["student"].cross_entropy < scores["baseline"].cross_entropy - 0.1
    assert scores["teachers"].accuracy > scores["baseline"].accuracy


def test_student_of_the_teachers_shape_reaches_the_teacher(tmp_path: Path) -> None:
    """Soft targets alone, no label: the student's posteriors go to those of a teacher that it could equal."""
    store, alignment, cmvn = synthetic(utterances=30, pdfs=PDFS, noise=1.0, seed=1)
    data = TrainingData.build(store, alignment, cmvn, SPLIT, CPU, **CONTEXT)
    shape = NetworkConfig(layers=1, width=48, left=3, right=3)
    teacher = trained(data, cmvn, HardTargets(data.pdf_ids), shape, 0, tmp_path / "teacher")
    write_soft_targets(Ensemble([teacher]), store, tmp_path / "soft", SoftTargetConfig(temperature=2, top_k=0), CPU)
    soft = SoftTargets.open(tmp_path / "soft", DistillConfig(hard_weight=0), None)
    student = trained(data, cmvn, soft, shape, 1, tmp_path / "student")
    divergence, agree, frames = 0.0, 0, 0
    for index in range(10):
        mine, its = (model.log_posteriors(store.features(index, CPU), 2.0) for model in (student, teacher))
        divergence += float((its.exp() * (its - mine)).sum())
        agree += int((mine.argmax(1) == its.argmax(1)).sum())
        frames += len(mine)
    assert divergence / frames < 0.05
    assert agree / frames > 0.9


@pytest.mark.parametrize("form", ["top_k", "compact", "dense", "online"])
def test_teachers_of_another_senone_tree_are_refused(tmp_path: Path, form: str) -> None:
    """Teachers over phones, a student over sentencepiece units: other pdfs for the same frames."""
    store, alignment, cmvn = synthetic(utterances=10, pdfs=PDFS, seed=1)
    _, other, _ = synthetic(utterances=10, pdfs=PDFS - 5, seed=1)
    data = TrainingData.build(store, other, cmvn, SPLIT, CPU, **CONTEXT)
    shape = NetworkConfig(layers=1, width=8, left=3, right=3)
    priors = log_priors_of(torch.ones(PDFS))
    teachers = Ensemble([AcousticModel(build_network(shape, data.num_coefficients, PDFS, seed=1), cmvn, priors, shape)])
    if form == "online":
        targets: Targets = OnlineTargets(teachers, store, SoftTargetConfig(precision="float32"), DistillConfig(),
                                         data.pdf_ids, CPU)
    else:
        write_soft_targets(teachers, store, tmp_path / "soft", SoftTargetConfig(form=form), CPU)  # type: ignore[arg-type]
        targets = SoftTargets.open(tmp_path / "soft", DistillConfig(), data.pdf_ids)
    message = f"student: the teachers tell {PDFS} senones apart, the alignment has {PDFS - 5}: they are of two senone"
    with pytest.raises(UserError, match=message):
        fit(data, targets, cmvn, shape, CONFIG, seed=1, out=tmp_path / "student", label="student")
    assert not (tmp_path / "student" / "weights.safetensors").exists()
    right = TrainingData.build(store, alignment, cmvn, SPLIT, CPU, **CONTEXT)
    few = replace(CONFIG, max_updates=2, evaluate_updates=2)
    fit(right, targets, cmvn, shape, few, seed=1, out=tmp_path / "right", label="student")
