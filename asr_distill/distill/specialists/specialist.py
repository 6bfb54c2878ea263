"""A specialist: the generalist's network, cut to its set of senones and one dustbin class for all others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from asr_distill.acoustic.base import UTTERANCE_BLOCK
from asr_distill.acoustic.model import AcousticModel
from asr_distill.distill.fingerprint import fingerprint_of
from asr_distill.errors import UserError
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.files import read_json, write_json

SPECIALIST = "specialist.json"


@dataclass(frozen=True)
class Specialist:
    """`model` has a class for each senone of `senones`, in that order, and the dustbin as the last one."""

    model: AcousticModel
    senones: tuple[int, ...]  # rising pdf-ids
    correction: float  # added to the dustbin's logit: log of how much more often the set was shown than the rest

    def __post_init__(self) -> None:
        if self.model.num_pdfs != len(self.senones) + 1:
            raise ValueError(f"a specialist of {len(self.senones)} senones needs as many outputs and one, "
                             f"not {self.model.num_pdfs}")

    @torch.inference_mode()
    def log_posteriors(self, utterance: UtteranceFeatures, rows: torch.Tensor) -> torch.Tensor:
        """Corrected log posteriors of the frames rows int64 (k,), float32 (k, senones + 1), on the model's device."""
        network = self.model.network
        frames = self.model.cmvn.apply(utterance.to(self.model.device)).to(network.dtype)
        if self.model.config.kind == "feed_forward":  # frames are independent: only those asked for are computed
            around = torch.arange(-network.left, network.right + 1, device=rows.device)
            logits = torch.cat([network(frames[(part.unsqueeze(1) + around).clamp_(0, len(frames) - 1)])
                                for part in rows.split(UTTERANCE_BLOCK)])
        else:
            logits = network.forward_utterance(frames)[rows]
        return self.corrected(logits)

    def corrected(self, logits: torch.Tensor) -> torch.Tensor:
        """Of logits (k, senones + 1) of the network."""
        logits = logits.float()
        logits[:, -1] += self.correction
        return torch.log_softmax(logits, 1)

    def cast(self, dtype: torch.dtype) -> Specialist:
        """A copy whose network computes in `dtype`."""
        return replace(self, model=self.model.cast(dtype))

    def fingerprint(self) -> str:
        parts = [fingerprint_of(self.model), self.senones, self.correction]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """The model's files, and specialist.json."""
        write_specialist(directory, self.senones, self.correction)
        self.model.save(directory)

    @staticmethod
    def load(directory: Path, device: torch.device) -> Specialist:
        """Raises UserError where a file is missing, damaged, or the files do not belong together."""
        senones, correction = read_specialist(directory)
        try:
            return Specialist(AcousticModel.load(directory, device), senones, correction)
        except ValueError as error:
            raise UserError(f"{directory}: damaged specialist ({error}); train it again") from None


def write_specialist(directory: Path, senones: Sequence[int], correction: float) -> None:
    write_json(directory / SPECIALIST, {"senones": list(senones), "correction": correction})


def read_specialist(directory: Path) -> tuple[tuple[int, ...], float]:
    """Senones and correction. Raises UserError where the file is missing or damaged."""
    facts = read_json(directory / SPECIALIST)
    try:
        return tuple(int(pdf) for pdf in facts["senones"]), float(facts["correction"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{directory / SPECIALIST}: damaged ({error!r}); train the specialist again") from None


def initial_weights(generalist: AcousticModel, senones: Sequence[int], correction: float) -> dict[str, torch.Tensor]:
    """The generalist's weights with the output rows of `senones` and a dustbin row, float32 on the CPU.

    The dustbin's logit should be log sum exp(z_i) over the other senones i. For any weights w on them it is at least
    sum of w_i z_i + H(w) (Jensen), with equality at their posterior; w are their priors, so the row is the mean of the
    others' rows by prior, and its bias has the entropy of w on top (log of their number, for equal priors). The
    correction is taken off: the specialist starts out as the generalist would judge the training mix.
    """
    state = {name: value.detach().cpu().clone() for name, value in generalist.network.state_dict().items()}
    chosen = torch.tensor(senones, dtype=torch.int64)
    others = torch.ones(generalist.num_pdfs, dtype=torch.bool)
    others[chosen] = False
    log_share = torch.log_softmax(generalist.log_priors.cpu().double()[others], 0)
    share = log_share.exp()
    weight, bias = (state[f"output.{name}"].double() for name in ("weight", "bias"))
    state["output.weight"] = torch.cat([weight[chosen], (share @ weight[others]).unsqueeze(0)]).float()
    dustbin = share @ bias[others] - share @ log_share - correction
    state["output.bias"] = torch.cat([bias[chosen], dustbin.unsqueeze(0)]).float()
    return state
