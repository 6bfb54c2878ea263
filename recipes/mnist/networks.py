"""One network of the recipe from its settings to its errors, and lists of them over the cores of this machine."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.precision import choose_precision, settled
from asr_distill.acoustic.targets import HardTargets, Targets
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.dense_targets import DenseTargets
from asr_distill.executor import available_cpus, local_executor
from asr_distill.files import read_array, write_array
from asr_distill.logs import log, to_terminal
from recipes.mnist.images import Errors, chosen_images, load_digits, logits_of, scaling, training_data


@dataclass(frozen=True)
class Teacher:
    """A large net's logits of all training images (an .npy file), and how they are learned."""

    logits: Path
    temperature: float
    loss: DistillConfig


@dataclass(frozen=True)
class Job:
    """One network: plain data for another process. Its result is the folder `out`."""

    label: str
    out: Path
    images: Path  # folder of the stage `data`
    network: NetworkConfig
    trainer: TrainerConfig
    seed: int
    heldout: int  # the last so many training images are not trained on, but scored
    teacher: Teacher | None = None  # None: learns the labels
    digits: tuple[int, ...] = ()  # trained on alone; empty: all

    @property
    def name(self) -> str:
        return self.out.name


def train_networks(jobs: Sequence[Job], device: torch.device, workers: int) -> dict[str, dict[str, Any]]:
    """Train what is not trained yet; name -> figures of each network, in the order of `jobs`.

    `workers` networks at once, each with its share of the cores (0: as `at_once` says on a CPU, one on a GPU).
    """
    jobs = [replace(job, trainer=settled(job.trainer, device, job.out.parent)) for job in jobs]
    workers = min(len(jobs), workers or (1 if device.type == "cuda" else at_once(len(jobs), available_cpus())))
    threads = 0 if workers == 1 else max(1, available_cpus() // workers)
    tasks = [(job, str(device), threads) for job in jobs]
    figures: dict[str, dict[str, Any]] = {}
    with local_executor(workers, initializer=None if workers == 1 else _begin_worker) as pool:
        for (job, *_), found in pool.run(train_network, tasks, threads=0):
            figures[job.name] = found
            log.info("%s: %s (%d of %d networks)", job.label, ", ".join(
                f"{errors['errors']} errors in {errors['images']:,} {split} images"
                for split, errors in found["splits"].items()), len(figures), len(jobs))
    return {job.name: figures[job.name] for job in jobs}


def at_once(count: int, cores: int) -> int:
    """How many of `count` networks to train beside each other on a CPU: one a core, or up to half as many again where
    that saves a last round with idle cores (a second thread speeds a net of this size up by a tenth)."""
    shared = math.ceil(count / max(1, count // cores))
    return shared if shared <= 1.5 * cores else cores


def train_network(task: tuple[Job, str, int]) -> dict[str, Any]:
    """Fit one network on its job's device; figures of the training and, by split, its errors.

    Writes the logits of the scored images beside the model: test_logits.npy and, where some are held out,
    heldout_logits.npy.
    """
    job, device, threads = task[0], torch.device(task[1]), task[2]
    if threads:
        torch.set_num_threads(threads)
    digits = load_digits(job.images, "train")
    cmvn = scaling(digits.images[0].size)
    data = training_data(digits, chosen_images(digits.labels, job.heldout, job.digits), cmvn, device,
                         choose_precision(job.trainer.precision, device).dtype)
    figures = fit(data, _targets(job, data.pdf_ids), cmvn, job.network, job.trainer, seed=job.seed, out=job.out,
                  label=job.label)
    model = AcousticModel.load(job.out, device)
    kept = ("updates", "seconds", "precision", "parameters", "seed", "train_accuracy")
    bytes_ = (job.out / "weights.safetensors").stat().st_size
    splits = {}
    for split, images, labels in _scored(job, digits):
        logits = logits_of(model, images)
        write_array(job.out / f"{split}_logits.npy", logits)
        splits[split] = Errors.of(logits, labels).to_dict()
    return {name: figures[name] for name in kept} | {"bytes": bytes_, "splits": splits}


def _targets(job: Job, labels: torch.Tensor) -> Targets:
    if job.teacher is None:
        return HardTargets(labels)
    logits = torch.from_numpy(read_array(job.teacher.logits)).to(labels.device)
    return DenseTargets(logits, job.teacher.temperature, job.teacher.loss, labels)


def _scored(job: Job, train: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    test = load_digits(job.images, "test")
    scored = [("test", test.images, test.labels)]
    if job.heldout:
        scored.append(("heldout", train.images[-job.heldout:], train.labels[-job.heldout:]))
    return scored


class _Lines(io.TextIOWrapper):
    """A stream that is no terminal to whoever asks: several live lines of progress would overwrite each other."""

    def isatty(self) -> bool:
        return False


def _begin_worker() -> None:
    sys.stderr = _Lines(os.fdopen(os.dup(2), "wb"), line_buffering=True)
    to_terminal()
