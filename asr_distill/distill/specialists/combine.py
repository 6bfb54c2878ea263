"""The distribution over all senones that agrees best with the generalist and the active specialists (equation 5).

Per frame: q minimising KL(p_g, q) + sum over active m of KL(p_m, q), where p_m's dustbin is compared with the mass Q_m
that q gives to the senones outside m's set. With a_i = p_g,i + sum of p_m,i over the active m whose set holds i, d_m
the dustbin of p_m and M = 1 + the number of active specialists (the sum of all a and d), q maximises

    sum_i a_i log q_i + sum_m d_m log Q_m,

a concave problem on the simplex. At its optimum q_i = a_i / c_i with c_i = M - sum of u_m over the m outside whose
set i lies and u_m = d_m / Q_m: a few unknowns a frame, in place of a logit for each senone, on which the paper goes
down the gradient. u maximises the dual, sum_i a_i log c_i + sum_m d_m log u_m: a handful of Newton steps. (The
multiplicative EM update q_i <- (a_i + sum_m d_m q_i / Q_m) / M has the same optimum, but its error shrinks by as little
as 1 - a_i / (M q_i) a step, where a specialist gives mass to senones that nobody else believes in.)

c is the same for senones that lie in the same sets: all is solved on sums of a over such groups, a few dozen.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

LEAST_MASS = 1e-12  # of a group or dustbin in the equations: below it Newton steps drown in rounding
LEAST_MULTIPLIER = 1e-2  # a group of less mass than that is what the dustbins ask for where its c is below this
DECREMENT = 1e-16  # squared Newton decrement at which a frame is done: the dual is then that near to its greatest
MOST_STEPS = 100
TO_BOUNDARY = 0.95  # greatest share of the way to where an unknown would change its sign
log = logging.getLogger("asr_distill")


@dataclass(frozen=True)
class Groups:
    """Senones by the sets that they are in."""

    group: torch.Tensor  # int64 (pdfs,)
    outside: torch.Tensor  # float64 (specialists + 1, groups): 1 where a group is outside a set; last row: nobody, 0

    @staticmethod
    def of(sets: Sequence[Sequence[int]], num_pdfs: int, device: torch.device) -> Groups:
        inside = np.zeros((len(sets), num_pdfs), bool)
        for row, members in zip(inside, sets, strict=True):
            row[list(members)] = True
        patterns, group = np.unique(inside, axis=1, return_inverse=True)  # (specialists, groups)
        outside = np.concatenate([~patterns, np.zeros((1, patterns.shape[1]), bool)]).astype(np.float64)
        return Groups(torch.from_numpy(group.reshape(-1)).to(device), torch.from_numpy(outside).to(device))


def combine(log_mass: torch.Tensor, dustbins: torch.Tensor, active: torch.Tensor, groups: Groups) -> torch.Tensor:
    """log q, float32 (frames, pdfs).

    log_mass (frames, pdfs): log of a; dustbins float64 (frames, specialists): d; active bool, of the same shape.
    """
    most = int(active.sum(1).max()) if len(active) else 0
    if not most:
        return log_mass
    mass = torch.zeros(len(active), groups.outside.shape[1], dtype=torch.float64, device=log_mass.device)
    mass.index_add_(1, groups.group, log_mass.double().exp()).clamp_(min=1e-300)  # (frames, groups)
    count, who = active.int().topk(most, 1)  # the active ones of each frame, then any others: (frames, most)
    who = torch.where(count > 0, who, active.shape[1])
    d = torch.where(count > 0, dustbins.gather(1, who.clamp(max=active.shape[1] - 1)), 0.0)
    outside = groups.outside[who]  # (frames, most, groups)
    if 1 << most < mass.shape[1]:
        mass, outside, merged = _merged(mass, outside)
        lift = (solve(mass, d, outside) / mass).log().gather(1, merged)
    else:
        lift = (solve(mass, d, outside) / mass).log()
    return torch.log_softmax(log_mass + lift.float()[:, groups.group], 1)


def _merged(mass: torch.Tensor, outside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Groups that are alike to a frame's active specialists as one: at most 2^active, some of them empty.

    mass (frames, groups), outside (frames, active, groups) -> (frames, merged), (frames, active, merged), and the
    merged group of each group, int64 (frames, groups). An empty one is outside no set: no dustbin can want it.
    """
    active = outside.shape[1]
    bits = 1 << torch.arange(active, device=mass.device)
    merged = torch.einsum("fag,a->fg", outside, bits.double()).long()
    total = mass.new_zeros(len(mass), 1 << active).scatter_add_(1, merged, mass)
    pattern = (torch.arange(1 << active, device=mass.device) & bits.unsqueeze(1)) > 0  # (active, merged)
    return total.clamp(min=1e-300), pattern * (total > 0).unsqueeze(1).double(), merged


def solve(mass: torch.Tensor, dustbins: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Sum of q over each group, (frames, groups), all float64.

    mass (frames, groups): sum of a; dustbins (frames, active): d; outside (frames, active, groups): 1 or 0, and all 0
    in the place of a specialist that is none (with a d of 0). Rows of mass and dustbins together sum to M.
    """
    own, mass = mass, mass.clamp(min=LEAST_MASS)
    real = outside.any(2)  # (frames, active); a set of all senones has no dustbin either
    d = torch.where(real, dustbins.clamp(min=LEAST_MASS), 0)
    total = mass.sum(1, keepdim=True) + d.sum(1, keepdim=True)  # M
    beyond = (outside * mass.unsqueeze(1)).sum(2)
    # exact for a single specialist; else shrunk so that c > 0: the sum of u is below M
    u = torch.where(real, total * d / (beyond + d).clamp(min=LEAST_MASS), 0)
    several = real.sum(1, keepdim=True) > 1
    u = torch.where(several, d, u)
    for _ in range(MOST_STEPS):
        c = _multiplier(total, u, outside)
        step, decrement = _newton(mass, d, u, c, outside, real)
        if bool((decrement <= DECREMENT).all()):
            break
        u = _moved(mass, d, u, c, step, decrement, total, outside, real)
    else:
        log.warning("specialists: %d frames not combined to full precision", int((decrement > DECREMENT).sum()))
    c = _multiplier(total, u, outside)
    # what the least mass itself puts in counts only where it stands for mass that a dustbin wants there
    share = own / c + (mass - own) * (1 / c - 1 / LEAST_MULTIPLIER).clamp(min=0)
    return share / share.sum(1, keepdim=True)


def _multiplier(total: torch.Tensor, u: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """c (frames, groups) = M - sum of u over the specialists outside whose sets a group is."""
    return total - torch.bmm(u.unsqueeze(1), outside).squeeze(1)


def _newton(mass: torch.Tensor, d: torch.Tensor, u: torch.Tensor, c: torch.Tensor, outside: torch.Tensor,
            real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The step of u (frames, active) and its squared decrement (frames,).

    In units of u / sqrt(d) the dual's negative Hessian is the identity and a positive part: always invertible.
    """
    unit = torch.where(real, u / d.sqrt(), 0)  # 0 / 0 where nobody is
    gradient = torch.where(real, d / u, 0) - torch.bmm(outside, (mass / c).unsqueeze(2)).squeeze(2)
    slope = unit * gradient
    root = outside * (mass.sqrt() / c).unsqueeze(1) * unit.unsqueeze(2)  # (frames, active, groups)
    hessian = torch.baddbmm(torch.eye(d.shape[1], dtype=d.dtype, device=d.device), root, root.transpose(1, 2))
    solution = torch.linalg.solve(hessian, slope)
    return unit * solution, (slope * solution).sum(1)


def _moved(mass: torch.Tensor, d: torch.Tensor, u: torch.Tensor, c: torch.Tensor, step: torch.Tensor,
           decrement: torch.Tensor, total: torch.Tensor, outside: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """u after the longest part of the step (1, or to near the boundary, halved) that raises the dual enough."""
    down = torch.bmm(step.unsqueeze(1), outside).squeeze(1)  # what a whole step takes from c
    reach = torch.cat([torch.where(real, -step / u, 0), down / c], 1).amax(1).clamp(min=1e-300)
    length = (TO_BOUNDARY / reach).clamp(max=1.0)
    before = _dual(mass, d, u, c, real)
    for _ in range(40):
        moved = u + length.unsqueeze(1) * step
        after = _dual(mass, d, moved, _multiplier(total, moved, outside), real)
        short = after < before + 0.1 * length * decrement - 1e-13  # near the optimum the dual's own rounding decides
        if not bool(short.any()):
            break
        length = torch.where(short, 0.5 * length, length)
    return moved


def _dual(mass: torch.Tensor, d: torch.Tensor, u: torch.Tensor, c: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(frames,)"""
    return (mass * c.log()).sum(1) + torch.where(real, d * u.log(), 0).sum(1)
