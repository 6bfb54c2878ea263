"""What a specialist is trained on: all frames of its set, and a random draw of the others as one dustbin class.

Paper, section 5.3: half of the examples come from the set. A frame of the rest is kept with the same probability
1 / rate, whatever it is, so that under the mix p'(senone) / p'(dustbin) = rate * p(senone) / p(dustbin) at every input:
log(rate) on the dustbin's logit brings the true posteriors back, exactly (section 5.4's correction).

The draw is made once for a specialist and does not depend on what a sample is: single frames are drawn from the list;
chunks go over whole utterances as ever, and the frames of the list are the rows that their loss counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.targets import HardTargets
from asr_distill.errors import UserError


@dataclass(frozen=True)
class Mix:
    """`data` has pdf-ids 0 to senones - 1 for the set, in its order, and the dustbin after them."""

    data: TrainingData
    correction: float  # log(rate)
    special: int  # frames trained on that are of the set
    rest: int  # and of the dustbin


def specialist_mix(data: TrainingData, senones: Sequence[int], special_share: float, seed: int) -> Mix:
    """Keep all frames of the set, and as many others as make them `special_share` (all, where there are fewer).

    Held-out frames are thinned at the same rate; frames that are not aligned are left out. Raises UserError where no
    frame trained on is of the set, or all are.
    """
    dustbin = len(senones)
    classes = torch.full((data.num_pdfs + 1,), dustbin)
    classes[torch.tensor(senones, dtype=torch.int64)] = torch.arange(dustbin)
    classes[-1] = -1  # not aligned
    pdf_ids = classes.to(data.device)[data.pdf_ids]
    labels = pdf_ids.cpu()
    special, rest = _parts(data.train, labels, dustbin)
    if not len(special) or not len(rest):
        raise UserError(f"specialist of {dustbin} senones ({', '.join(map(str, senones[:5]))}, ...): "
                        f"{'no frame' if not len(special) else 'every frame'} trained on is of its set: "
                        "change the number or the sizes of the sets")
    drawn = min(len(rest), max(1, round(len(special) * (1 - special_share) / special_share)))
    rate = len(rest) / drawn
    random = np.random.default_rng((seed, 3))
    train = _with_draw(special, rest, drawn, random)
    held_special, held_rest = _parts(data.heldout, labels, dustbin)
    heldout = _with_draw(held_special, held_rest, round(len(held_rest) / rate), random)
    mixed = replace(data, pdf_ids=pdf_ids, train=train, heldout=heldout, num_pdfs=dustbin + 1)
    return Mix(mixed, math.log(rate), len(special), drawn)


class SpecialistTargets(HardTargets):
    """Hard targets over batches that may hold no frame of the mix (chunks of silence, a set without silence)."""

    def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return super().loss(logits, frames) if len(frames) else logits.float().sum()

    def to(self, device: torch.device) -> SpecialistTargets:
        return SpecialistTargets(self.pdf_ids.to(device))


def _parts(frames: torch.Tensor, labels: torch.Tensor, dustbin: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames of the set and the others, each in order; those without a senone (a transfer set's) are in neither."""
    own = labels[frames]
    return frames[(own >= 0) & (own < dustbin)], frames[own == dustbin]


def _with_draw(special: torch.Tensor, rest: torch.Tensor, drawn: int, random: np.random.Generator) -> torch.Tensor:
    chosen = random.choice(len(rest), drawn, replace=False) if drawn else np.empty(0, np.int64)
    return torch.cat([special, rest[torch.from_numpy(chosen)]]).sort().values
