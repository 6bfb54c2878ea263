"""What benchmarks/distill.py measures on: the teachers of a finished experiment, or random ones in their place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures
from asr_distill.features.store import FrameStore, Utterance, pack_stats, write_store_index
from asr_distill.files import read_json, write_array

COEFFICIENTS, LENGTH = 40, 1200


@dataclass(frozen=True)
class World:
    """Teachers, what they hear, and another network over the same pdfs (a student's error is measured at it)."""

    ensemble: Ensemble
    store: FrameStore
    other: AcousticModel
    about: str


class PartOfStore(FrameStore):
    """Evenly spread utterances of a store, about `frames` frames in all."""

    def __init__(self, store: FrameStore, frames: int):
        count = max(8, round(len(store.utterances) * frames / store.num_frames))
        self.whole = store
        self.chosen = np.unique(np.linspace(0, len(store.utterances) - 1, count).round().astype(int))
        self.directory, self.num_coefficients, self.adapted = store.directory, store.num_coefficients, store.adapted
        self.utterances = [store.utterances[index] for index in self.chosen]
        self.offsets = np.concatenate([[0], np.cumsum(np.diff(store.offsets)[self.chosen])])
        self.num_frames = int(self.offsets[-1])

    def features(self, index: int, device: torch.device | str) -> UtteranceFeatures:
        return self.whole.features(int(self.chosen[index]), device)


class Recorded:
    """A model whose log-posteriors were asked for before: what is timed with it is not the teachers' own work."""

    def __init__(self, ensemble: Ensemble, store: FrameStore, temperature: float, name: str):
        self.num_pdfs, self.device, self.name = ensemble.num_pdfs, ensemble.device, name
        self.found = {float(store.features(index, "cpu").raw.double().sum()):
                      ensemble.log_posteriors(store.features(index, ensemble.device), temperature)
                      for index in range(len(store.utterances))}

    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        return self.found[float(utterance.raw.cpu().double().sum())]

    def fingerprint(self) -> str:
        return self.name


def finished(exp: Path, frames: int, device: torch.device) -> World:
    """The teachers and the baseline of an experiment of a speech recipe, on a part of what they were trained on."""
    def stage(name: str) -> Path:
        for folder in sorted(exp.glob(f"[0-9][0-9]_{name}")):
            if (folder / "stage.json").is_file():
                return folder
        raise UserError(f"{exp}: no finished stage '{name}'; give --exp the folder of an experiment whose baseline is "
                        "trained")

    names = sorted((stage("teachers")).glob("teacher*"), key=lambda path: int(path.name.removeprefix("teacher")))
    split = next(name for name in ("train_sp", "train") if (stage("features") / name).is_dir())
    store = FrameStore(stage("features") / split, stage("align") / split / "adapted")
    settings = read_json(stage("soft_targets") / "soft_targets.json") if list(exp.glob("*_soft_targets")) else {}
    ensemble = Ensemble([AcousticModel.load(name, device) for name in names], settings.get("mean", "arithmetic"))
    baseline = AcousticModel.load(stage("baseline") / "baseline", device)
    part = PartOfStore(store, frames)
    return World(ensemble, part, baseline, f"{len(names)} trained teachers, {part.num_frames} of their training frames")


def random_world(folder: Path, frames: int, pdfs: int, teachers: int, sharpness: float,
                 device: torch.device) -> World:
    """Random networks over smoothed noise. Their output layers have singular values that fall as trained ones' do, and
    are scaled until posteriors are about as peaked: sizes and errors are like trained teachers', no more than that.
    frames: 0 for the store that is in the folder already.
    """
    if frames:
        random_store(folder, frames)
    store = FrameStore(folder)
    cmvn, shape = Cmvn("global", store.total_stats), NetworkConfig(layers=3, width=256)
    shared = torch.randn(pdfs, 256, generator=torch.Generator().manual_seed(0))
    models = []
    for seed in range(teachers + 1):
        network = build_network(shape, COEFFICIENTS, pdfs, seed=seed).to(device).eval()
        with torch.no_grad():
            # teachers agree on what pdfs are like: one set of directions, found by each from its own hidden units
            falling = torch.arange(1, 257, device=device) ** -1.0
            mixing = torch.linalg.qr(network.output.weight[:256].double())[0].float()
            network.output.weight.copy_(sharpness * (shared.to(device) * falling) @ mixing)
        models.append(AcousticModel(network, cmvn, log_priors_of(torch.ones(pdfs)).to(device), shape))
    return World(Ensemble(models[:-1]), store, models[-1], f"{teachers} random teachers (no trained ones: give --exp)")


def random_store(directory: Path, frames: int) -> None:
    """Smoothed noise in utterances of 12 s."""
    random = np.random.default_rng(0)
    utterances = max(8, frames // LENGTH)
    noise = random.normal(size=(utterances * LENGTH + 8, COEFFICIENTS))
    smooth = np.sum([noise[i:i + utterances * LENGTH] for i in range(8)], axis=0).astype(np.float16)
    write_array(directory / "frames.npy", smooth)
    stats = np.stack([pack_stats(CmvnStats.of(part)) for part in np.split(smooth, utterances)])
    write_store_index(directory, [Utterance(f"u{i}", "s", (), LENGTH / 100) for i in range(utterances)],
                      [LENGTH] * utterances, stats, {"config": {}})
