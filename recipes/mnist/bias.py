"""The bias of some digits moved by one number, chosen on images that are not reported (section 3 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def moved(logits: np.ndarray, digits: Sequence[int], bias: float) -> np.ndarray:
    """A copy of logits (N, 10) in which those of `digits` have `bias` added: what moving their output biases does."""
    result = logits.copy()
    result[:, list(digits)] += bias
    return result


def best_bias(logits: np.ndarray, labels: np.ndarray, digits: Sequence[int]) -> float:
    """The number that, added to the logits of `digits`, makes fewest errors: the middle of the widest such range.

    logits (N, 10), labels (N,), N >= 1; `digits` some but not all of the ten. Exact: an image goes over from the best
    of the other digits to the best of `digits` at one bias, so the errors are a step function with N steps. Beyond its
    outermost steps nothing changes: such a range counts as 1 wide.
    """
    inside = np.zeros(logits.shape[1], bool)
    inside[list(digits)] = True
    among, others = np.where(inside, logits, -np.inf), np.where(inside, -np.inf, logits)
    # (N,): the bias from which on an image is taken for one of `digits`
    steps = (others.max(1) - among.max(1)).astype(np.float64)
    change = (among.argmax(1) != labels).astype(np.int64) - (others.argmax(1) != labels)  # in errors, there
    order = np.argsort(steps, kind="stable")
    errors = np.concatenate([[0], np.cumsum(change[order])])  # (N + 1,): on each range, up to a constant
    edges = np.concatenate([[steps[order[0]] - 1], steps[order], [steps[order[-1]] + 1]])  # (N + 2,)
    widths = np.diff(edges)
    # ranges without width lie between images that go over at the same bias: no bias is in them
    best = errors[widths > 0].min()
    at = int(np.argmax(np.where(errors == best, widths, -1.0)))
    return float((edges[at] + edges[at + 1]) / 2)
