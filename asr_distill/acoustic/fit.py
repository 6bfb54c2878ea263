"""From settings to a saved acoustic model: what teachers, baseline and student have in common."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from asr_distill.acoustic.base import Network
from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network, num_parameters
from asr_distill.acoustic.priors import mean_posteriors
from asr_distill.acoustic.sampling import sampler_for
from asr_distill.acoustic.targets import Targets, check_pdfs
from asr_distill.acoustic.trainer import train
from asr_distill.features.cmvn import Cmvn
from asr_distill.files import read_json, write_json

Priors = Literal["alignment", "posterior"]
TRAIN_FRAMES = 200_000  # about so many of the frames trained on are scored


def fit(data: TrainingData, targets: Targets, cmvn: Cmvn, network: NetworkConfig, trainer: TrainerConfig, *,
        seed: int, out: Path, label: str, priors: Priors = "alignment",
        initial: Mapping[str, torch.Tensor] | None = None,
        change: Callable[[Network], None] | None = None) -> dict[str, Any]:
    """Train one network and save it, with its CMVN and priors, as an AcousticModel in `out`; returns figures.

    A model that is complete in `out` is not trained again; one that was interrupted goes on from its checkpoint.
    `cmvn` must be what `data` was normalised with. `priors`: of the aligned pdf-ids, or the network's own mean
    posteriors over a sample of the frames trained on. `initial`: the weights to start from, by their names in the
    network, in place of those that `seed` draws. `change`: done to the network before it gets them. Raises UserError
    as `train` does, and for teachers of another number of pdfs. Among the figures: `accuracy` on the held-out frames
    and `train_accuracy` on frames trained on, both of the network that is saved.
    """
    record = out / "training.json"
    if record.is_file():
        return read_json(record)
    check_pdfs(targets, data.num_pdfs, label)
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    built = build_network(network, data.num_coefficients, data.num_pdfs, seed=seed)
    if change is not None:
        change(built)
    if initial is not None:
        built.load_state_dict(initial)
    result = train(built, data, targets, trainer, seed=seed, work=work, device=data.device, label=label)
    frequencies = (data.pdf_frequencies() if priors == "alignment" else
                   mean_posteriors(result.network, data, trainer.chunk, seed=seed))
    AcousticModel(result.network, cmvn, log_priors_of(frequencies).to(data.device), network).save(out)
    figures = {field.name: _number(getattr(result, field.name)) for field in dataclasses.fields(result)
               if field.name != "network"}
    figures |= {"train_accuracy": _number(train_accuracy(result.network, data, trainer.chunk)), "seed": seed,
                "parameters": num_parameters(result.network)}
    write_json(record, figures)
    (work / "checkpoint.safetensors").unlink(missing_ok=True)  # of no use to a finished model, and large
    return figures


@torch.inference_mode()
def train_accuracy(network: Network, data: TrainingData, chunk: int, most: int = TRAIN_FRAMES) -> float:
    """Frame accuracy (0 to 1) on aligned frames trained on: all, or those of evenly spread utterances of `most` frames.

    nan where none is aligned. The network must be in evaluation mode, on the data's device; nothing is augmented.
    """
    aligned = data.train[data.pdf_ids.cpu()[data.train] >= 0]
    if not len(aligned):
        return math.nan
    owners = np.searchsorted(data.offsets, aligned.numpy(), "right") - 1
    spoken = np.unique(owners)
    # chunks compute whole utterances, few of whose frames may be trained on
    cost = len(aligned) if chunk == 1 else int(np.diff(data.offsets)[spoken].sum())
    chosen = aligned[torch.from_numpy(np.isin(owners, spoken[::-(-cost // most)]))]
    sampler = sampler_for(network, dataclasses.replace(data, heldout=chosen), most, chunk, network.dtype, seed=0)
    correct = torch.zeros((), dtype=torch.float64, device=data.device)
    for batch in sampler.heldout():
        correct += (network(batch.windows, batch.rows).argmax(1) == data.pdf_ids[batch.frames]).sum()
    return float(correct) / len(chosen)


def _number(value: Any) -> Any:
    """JSON has no nan."""
    return None if isinstance(value, float) and math.isnan(value) else value
