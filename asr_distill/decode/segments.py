"""The matched-pairs sentence-segment word error test (MAPSSWE): Gillick and Cox, "Some statistical issues in the
comparison of speech recognition algorithms" (ICASSP 1989), as NIST's sctk runs it.

Utterances are cut into segments wherever both systems get at least two words in a row right; errors in two segments
are then taken as independent, and the mean difference of errors per segment as normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import kaldialign
import numpy as np

GOOD_WORDS = 2  # in a row, right in both systems: a segment's end (sctk's default)
NOTHING = ""  # no word is empty

Texts = Mapping[str, Sequence[str]]


def mapsswe(references: Texts, hypotheses_a: Texts, hypotheses_b: Texts) -> tuple[float, int]:
    """(two-sided p, number of segments in which a system errs)."""
    differences = np.concatenate([segment_differences(reference, hypotheses_a[id], hypotheses_b[id])
                                  for id, reference in references.items()])
    return matched_pairs_p(differences), len(differences)


def matched_pairs_p(differences: np.ndarray) -> float:
    """Two-sided p that the mean of `differences` (segments,) is 0, by the normal distribution.

    Where all differences are equal (the variance is 0) the exact sign test takes its place.
    """
    number = len(differences)
    if not differences.any():
        return 1.0
    deviation = differences.std(ddof=1) if number > 1 else 0.0
    if deviation == 0:
        return min(1.0, 2.0 ** (1 - number))
    return math.erfc(abs(differences.mean()) / (deviation / math.sqrt(number)) / math.sqrt(2))


def segment_differences(reference: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
    """Errors of b minus errors of a, in every segment that has an error, int64 (segments,)."""
    errors_a, errors_b = error_slots(reference, a), error_slots(reference, b)
    wrong = np.flatnonzero(errors_a + errors_b)
    if not len(wrong):
        return np.zeros(0, np.int64)
    # Words lie in odd slots: how many right ones stand between two neighbouring wrong slots?
    right_words = wrong[1:] // 2 - (wrong[:-1] + 1) // 2
    starts = np.concatenate([[0], np.flatnonzero(right_words >= GOOD_WORDS) + 1])
    return np.add.reduceat((errors_b - errors_a)[wrong], starts)


def error_slots(reference: Sequence[str], hypothesis: Sequence[str]) -> np.ndarray:
    """Errors by place, int64 (2 * words + 1,): insertions before word i in slot 2i, word i's own error in 2i + 1."""
    slots = np.zeros(2 * len(reference) + 1, np.int64)
    position = 0
    for spoken, heard in kaldialign.align(list(reference), list(hypothesis), NOTHING):
        if spoken == NOTHING:
            slots[2 * position] += 1
        else:
            slots[2 * position + 1] = spoken != heard
            position += 1
    return slots
