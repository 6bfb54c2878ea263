"""A specialist: the generalist's network with a class for each senone of its set and one, the dustbin, for all others.

The dustbin's logit comes in two forms. `unit`: one row of the output layer, as in the paper. No linear unit can say
what the summed mass of hundreds of senones is: it starts as a bound, and a specialist has to learn first what the
generalist knew; on speech it did not get there in a few hundred updates, and took mass from its own set. `sum`: the
log of the summed exponentials of the other senones' logits, whose rows are kept (and trained): a specialist starts out
as just the generalist, at the price of its whole output layer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from asr_distill.acoustic.base import UTTERANCE_BLOCK, Network
from asr_distill.acoustic.model import AcousticModel
from asr_distill.distill.fingerprint import fingerprint_of
from asr_distill.distill.specialists.config import Dustbin
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

    @property
    def dustbin(self) -> Dustbin:
        return "sum" if isinstance(self.model.network.output, SumDustbin) else "unit"

    def save(self, directory: Path) -> None:
        """The model's files, and specialist.json."""
        pdfs = self.model.network.output.out_features if self.dustbin == "sum" else 0
        Facts(self.senones, self.correction, self.dustbin, pdfs).write(directory)
        self.model.save(directory)

    @staticmethod
    def load(directory: Path, device: torch.device) -> Specialist:
        """Raises UserError where a file is missing, damaged, or the files do not belong together."""
        facts = Facts.read(directory)
        try:
            return Specialist(AcousticModel.load(directory, device, facts.change()), facts.senones, facts.correction)
        except ValueError as error:
            raise UserError(f"{directory}: damaged specialist ({error}); train it again") from None


class SumDustbin(nn.Linear):
    """An output layer over all senones, those of the set first, that gives the set's logits and the dustbin's.

    The dustbin's is the log of the others' summed exponentials, less `correction`: under the mix they are that rarer.
    """

    def __init__(self, inputs: int, pdfs: int, senones: int, correction: float):
        super().__init__(inputs, pdfs)
        self.senones, self.correction = senones, correction

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (frames, inputs) -> float32 (frames, senones + 1)."""
        logits = super().forward(hidden).float()
        dustbin = torch.logsumexp(logits[:, self.senones:], 1, keepdim=True) - self.correction
        return torch.cat([logits[:, :self.senones], dustbin], 1)


@dataclass(frozen=True)
class Facts:
    """What specialist.json says."""

    senones: tuple[int, ...]
    correction: float
    dustbin: Dustbin = "unit"
    pdfs: int = 0  # rows of the output layer, of `sum`

    def change(self) -> Callable[[Network], None] | None:
        """What makes the network that the settings describe one of this form."""
        if self.dustbin == "unit":
            return None

        def put(network: Network) -> None:
            network.output = SumDustbin(network.output.in_features, self.pdfs, len(self.senones), self.correction)
        return put

    def write(self, directory: Path) -> None:
        write_json(directory / SPECIALIST, {"senones": list(self.senones), "correction": self.correction,
                                            "dustbin": self.dustbin, "pdfs": self.pdfs})

    @staticmethod
    def read(directory: Path) -> Facts:
        """Raises UserError where the file is missing or damaged."""
        facts = read_json(directory / SPECIALIST)
        try:
            found = Facts(tuple(int(pdf) for pdf in facts["senones"]), float(facts["correction"]),
                          facts.get("dustbin", "unit"), int(facts.get("pdfs", 0)))
            if found.dustbin not in get_args(Dustbin) or (found.dustbin == "sum" and found.pdfs <= len(found.senones)):
                raise ValueError("dustbin")
            return found
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{directory / SPECIALIST}: damaged ({error!r}); train the specialist again") from None


def initial_weights(generalist: AcousticModel, facts: Facts) -> dict[str, torch.Tensor]:
    """The generalist's weights for a specialist's network, float32 on the CPU.

    sum: the output rows of the set, then all others; the specialist starts out as the generalist would judge the mix.
    unit: the rows of the set and a dustbin row. Its logit should be log sum exp(z_i) over the other senones i. For any
    weights w on them that is at least sum of w_i z_i + H(w) (Jensen), with equality at their posterior; w are their
    priors, so the row is the mean of the others' rows by prior, and its bias has the entropy of w on top (log of their
    number, for equal priors). The correction is taken off.
    """
    state = {name: value.detach().cpu().clone() for name, value in generalist.network.state_dict().items()}
    chosen = torch.tensor(facts.senones, dtype=torch.int64)
    others = torch.ones(generalist.num_pdfs, dtype=torch.bool)
    others[chosen] = False
    weight, bias = (state[f"output.{name}"].double() for name in ("weight", "bias"))
    if facts.dustbin == "sum":
        state["output.weight"] = torch.cat([weight[chosen], weight[others]]).float()
        state["output.bias"] = torch.cat([bias[chosen], bias[others]]).float()
        return state
    log_share = torch.log_softmax(generalist.log_priors.cpu().double()[others], 0)
    share = log_share.exp()
    state["output.weight"] = torch.cat([weight[chosen], (share @ weight[others]).unsqueeze(0)]).float()
    dustbin = share @ bias[others] - share @ log_share - facts.correction
    state["output.bias"] = torch.cat([bias[chosen], dustbin.unsqueeze(0)]).float()
    return state
