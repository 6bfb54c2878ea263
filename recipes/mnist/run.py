"""mnist: the paper's first experiment, through the losses, targets and trainer of speech.

    python recipes/mnist/run.py --set data.dir=FOLDER

FOLDER holds MNIST's four idx files; without data.dir they are downloaded. Every stage is one function that fills
`run.out`; `--list` prints them. docs/mnist.md says what is run and how.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.model import AcousticModel
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.dense_targets import DenseTargets
from asr_distill.files import read_array, write_array
from asr_distill.recipe import Recipe, StageRun, stage
from asr_distill.recipe_command import main
from local.mnist import find_mnist
from recipes.mnist.bias import best_bias, moved
from recipes.mnist.images import Errors, load_digits, logits_of, save_digits
from recipes.mnist.networks import Job, Teacher, train_networks
from recipes.mnist.results import write_results
from recipes.mnist.settings import MnistSettings, PartialSettings

TRAINED = ["large", "small_plain", "distilled", "sweep", "without_3s", "only_7s_8s"]


@stage(settings=["data"])
def data(run: StageRun) -> dict:
    """The idx files, checked, to arrays."""
    settings = run.settings.data
    splits = find_mnist(settings.dir, Path(settings.download_dir), settings.base_url)
    save_digits(splits, run.out)
    return {split: {"images": len(digits.labels), "by_digit": np.bincount(digits.labels, minlength=10).tolist()}
            for split, digits in splits.items()}


@stage(reads=["data"], settings=["runs", "large"], resumable=True)
def large(run: StageRun) -> dict:
    """The large nets: dropout, limited incoming weights, shifted images."""
    settings = run.settings.large
    return train(run, (job(run, f"large_{seed}", settings.network, settings.trainer, seed) for seed in seeds(run)))


@stage(reads=["data", "large"], settings=["soft", "runs.seeds"])
def soft_targets(run: StageRun) -> dict:
    """Each large net's logits of all training images, and what its posteriors look like at several temperatures."""
    images, figures = load_digits(run.input("data"), "train").images, {}
    for seed in seeds(run):
        model = AcousticModel.load(run.input("large") / f"large_{seed}", run.device)
        logits = logits_of(model, images)
        write_array(run.out / f"large_{seed}.npy", logits)
        figures[f"large_{seed}"] = {f"{temperature:g}": softness(logits, temperature)
                                    for temperature in run.settings.soft.temperatures}
    return figures


@stage(reads=["data"], settings=["runs", "small"], resumable=True)
def small_plain(run: StageRun) -> dict:
    """The small nets on labels, without any regularisation."""
    settings = run.settings.small
    return train(run, (job(run, f"small_plain_{seed}", settings.network, settings.trainer, seed)
                       for seed in seeds(run)))


@stage(reads=["data", "soft_targets"], settings=["runs", "small.network", "distilled"], resumable=True)
def distilled(run: StageRun) -> dict:
    """The small nets on the large nets' posteriors."""
    settings = run.settings.distilled
    return train(run, (job(run, f"distilled_{seed}", run.settings.small.network, settings.trainer, seed,
                           teacher(run, seed, settings.temperature, settings.loss)) for seed in seeds(run)))


@stage(reads=["data", "soft_targets"], settings=["runs", "sweep"], resumable=True)
def sweep(run: StageRun) -> dict:
    """Nets of other widths, on labels and on posteriors at each temperature."""
    settings, jobs = run.settings.sweep, []
    for name, group in settings.groups.items():
        for seed in seeds(run):
            jobs.append(job(run, f"{name}_plain_{seed}", group.network, group.trainer, seed))
            jobs += [job(run, f"{name}_T{temperature:g}_{seed}", group.network, group.trainer, seed,
                         teacher(run, seed, temperature, settings.loss)) for temperature in group.temperatures]
    return train(run, jobs)


@stage(reads=["data", "soft_targets"], settings=["runs", "small.network", "without_3s"], resumable=True)
def without_3s(run: StageRun) -> dict:
    """The small nets distilled without having seen a 3; then the bias of 3 is put right."""
    return partial(run, "without_3s", run.settings.without_3s)


@stage(reads=["data", "soft_targets"], settings=["runs", "small.network", "only_7s_8s"], resumable=True)
def only_7s_8s(run: StageRun) -> dict:
    """The small nets distilled on 7s and 8s alone; then the biases of 7 and 8 are put right."""
    return partial(run, "only_7s_8s", run.settings.only_7s_8s)


@stage(reads=["data", "soft_targets", *TRAINED],
       settings=["runs", "large", "soft", "small", "distilled", "sweep", "without_3s", "only_7s_8s"])
def report(run: StageRun) -> dict:
    """Errors on the test images, mean of the seeds, beside the paper's: RESULTS.json, RESULTS.md, a plot."""
    labels = load_digits(run.input("data"), "test").labels
    write_results(run.out, run.recipe, data=run.figures("data"), soft=run.figures("soft_targets"),
                  stages={name: run.figures(name) for name in TRAINED},
                  folders={name: run.input(name) for name in TRAINED}, labels=labels, groups=run.settings.sweep.groups,
                  seeds=seeds(run), settings=run.settings.all(), device=str(run.device), seconds=run.stage_seconds(),
                  command=shlex.join(["python", *sys.argv]))
    run.publish("RESULTS.json", "RESULTS.md", "RESULTS.txt", "temperature.png")
    return {}


def seeds(run: StageRun) -> tuple[int, ...]:
    return run.settings.runs.seeds


def train(run: StageRun, jobs: Iterable[Job]) -> dict:
    return train_networks(list(jobs), run.device, run.settings.runs.workers)


def job(run: StageRun, name: str, network: NetworkConfig, trainer: TrainerConfig, seed: int,
        taught: Teacher | None = None, *, heldout: int = 0, digits: tuple[int, ...] = ()) -> Job:
    return Job(name, run.out / name, run.input("data"), network, trainer, seed,
               max(heldout, run.settings.runs.heldout), taught, digits)


def teacher(run: StageRun, seed: int, temperature: float, loss: DistillConfig) -> Teacher:
    """The large net of the same seed."""
    return Teacher(run.input("soft_targets") / f"large_{seed}.npy", temperature, loss)


def softness(logits: np.ndarray, temperature: float) -> dict[str, float]:
    """Of the targets at a temperature: mean entropy in nats, mean greatest probability."""
    targets = DenseTargets(torch.from_numpy(logits), temperature, DistillConfig(hard_weight=0.0), None).probabilities
    return {"entropy": float(torch.special.entr(targets).sum(1).mean()), "greatest": float(targets.amax(1).mean())}


def partial(run: StageRun, name: str, settings: PartialSettings) -> dict:
    """Nets whose transfer set shows some digits alone; their errors before and after the bias correction.

    The bias is chosen on training images that were kept from the transfer set, never on test images.
    """
    figures = train(run, (job(run, f"{name}_{seed}", run.settings.small.network, settings.trainer, seed,
                              teacher(run, seed, settings.temperature, settings.loss), heldout=settings.heldout,
                              digits=settings.digits) for seed in seeds(run)))
    train_labels, test_labels = (load_digits(run.input("data"), split).labels for split in ("train", "test"))
    for network, found in figures.items():
        held, tested = (read_array(run.out / network / f"{split}_logits.npy") for split in ("heldout", "test"))
        bias = best_bias(held, train_labels[-len(held):], settings.corrected)
        found["bias"] = bias
        found["corrected"] = {
            "test": Errors.of(moved(tested, settings.corrected, bias), test_labels).to_dict(),
            "heldout": Errors.of(moved(held, settings.corrected, bias), train_labels[-len(held):]).to_dict()}
    return figures


STAGES = [data, large, soft_targets, small_plain, distilled, sweep, without_3s, only_7s_8s, report]
recipe = Recipe("mnist", MnistSettings, ROOT / "conf" / "mnist.yaml", STAGES)

if __name__ == "__main__":
    sys.exit(main(recipe))
