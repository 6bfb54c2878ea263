"""A trained network with its normalisation and its priors: an emission model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from asr_distill.acoustic.base import Float32Norm, Network
from asr_distill.acoustic.checkpoint import read_tensors, write_tensors
from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.together import Windows
from asr_distill.config import build, to_dict
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, UtteranceFeatures
from asr_distill.files import read_json, write_json


@dataclass(frozen=True)
class AcousticModel:
    """log p(pdf | frame) and, through Bayes' rule, log p(frame | pdf) up to a constant of the frame."""

    network: Network
    cmvn: Cmvn
    log_priors: torch.Tensor  # float32 (pdfs,)
    config: NetworkConfig

    @property
    def num_pdfs(self) -> int:
        return self.network.num_pdfs

    @property
    def device(self) -> torch.device:
        return self.network.device

    @torch.inference_mode()
    def logits(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """float32 (frames, pdfs) on the model's device. The network must be in evaluation mode."""
        frames = self.cmvn.apply(utterance.to(self.device))
        return self.network.forward_utterance(frames.to(self.network.output.weight.dtype)).float()

    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        """log softmax(logits / temperature), float32 (frames, pdfs)."""
        return torch.log_softmax(self.logits(utterance) / temperature, 1)

    @torch.inference_mode()
    def log_posteriors_of(self, utterances: Sequence[UtteranceFeatures], temperature: float = 1.0) -> torch.Tensor:
        """The same of several utterances in one pass, float32 (frames of all, pdfs)."""
        return torch.log_softmax(self.network(*self.windows_of(utterances)).float() / temperature, 1)

    def windows_of(self, utterances: Sequence[UtteranceFeatures]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network is given of whole utterances: windows and rows (together.Windows)."""
        frames = [self.cmvn.apply(each.to(self.device)).to(self.network.dtype) for each in utterances]
        together = Windows.of(frames, self.network.left, self.network.right)
        return together.windows, together.rows

    def log_likelihoods(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """log posterior - log prior, float32 (frames, pdfs) (Bourlard and Morgan's scaled likelihoods)."""
        return self.log_posteriors(utterance) - self.log_priors

    def cast(self, dtype: torch.dtype) -> AcousticModel:
        """A copy that computes in `dtype` (its normalisation layers in float32)."""
        network = copy.deepcopy(self.network).to(dtype)
        for module in network.modules():
            if isinstance(module, Float32Norm):
                module.float()
        return replace(self, network=network)

    def save(self, directory: Path) -> None:
        """Write weights.safetensors and, last, model.json."""
        tensors = {name: value.float() if value.is_floating_point() else value
                   for name, value in self.network.state_dict().items()}
        write_tensors(directory / "weights.safetensors", tensors | {"log_priors": self.log_priors}, {})
        write_json(directory / "model.json", {
            "network": to_dict(self.config), "num_coefficients": self.network.num_coefficients,
            "num_pdfs": self.num_pdfs, "cmvn": self.cmvn.to_dict()})

    @classmethod
    def load(cls, directory: Path, device: torch.device,
             change: Callable[[Network], None] | None = None) -> AcousticModel:
        """`change`: what was done to the network that its settings describe (see `fit`).

        Raises UserError where a file is missing, damaged, or the two do not belong together.
        """
        facts = read_json(directory / "model.json")
        tensors, _ = read_tensors(directory / "weights.safetensors", device)
        try:
            config = build(NetworkConfig, facts["network"])
            network = build_network(config, facts["num_coefficients"], facts["num_pdfs"])
            if change is not None:
                change(network)
            network.to(device)
            log_priors = tensors.pop("log_priors")
            network.load_state_dict(tensors)
            return cls(network.eval(), Cmvn.from_dict(facts["cmvn"]), log_priors, config)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{directory}: damaged model ({reason}); train it again") from None


def log_priors_of(frequencies: torch.Tensor, floor: float = 0.01) -> torch.Tensor:
    """Log of the pdfs' relative frequencies (pdfs,), float32.

    None is below `floor` / pdfs: a pdf that training never showed would otherwise win by its infinite likelihood.
    """
    counts = frequencies.double()
    share = (counts / counts.sum()).clamp(min=floor / len(counts))
    return (share / share.sum()).log().float()
