"""How good word confidences are: normalised cross-entropy and the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Sequence

import kaldialign
import numpy as np

NOTHING = ""  # no word is empty
LEAST = 1e-6  # a confidence of 0 or 1 that is wrong would cost infinitely much


def correct_words(reference: Sequence[str], heard: Sequence[str]) -> np.ndarray:
    """Which of the words heard are right in the alignment of least edits, bool (heard,)."""
    return np.array([spoken == word for spoken, word in kaldialign.align(list(reference), list(heard), NOTHING)
                     if word != NOTHING], bool)


def normalised_cross_entropy(confidences: np.ndarray, correct: np.ndarray) -> float:
    """NIST's NCE (sclite): 1 for certainty that is always right, 0 for the share of right words as everybody's
    confidence, below 0 for what is worse than that.

    Raises ValueError where all words are right, or none: there is nothing to tell apart.
    """
    correct = np.asarray(correct, bool)
    if correct.all() or not correct.any():
        raise ValueError("normalised cross-entropy needs right words and wrong ones")
    p = np.clip(np.asarray(confidences, np.float64), LEAST, 1 - LEAST)
    share = correct.mean()
    apart = -len(correct) * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
    return float((apart + np.log2(p[correct]).sum() + np.log2(1 - p[~correct]).sum()) / apart)


def roc_area(confidences: np.ndarray, correct: np.ndarray) -> float:
    """The chance that a right word has more confidence than a wrong one (equal ones count half): Mann and Whitney's U.

    Raises ValueError where all words are right, or none.
    """
    correct = np.asarray(correct, bool)
    right, wrong = np.sort(np.asarray(confidences)[correct]), np.asarray(confidences)[~correct]
    if not len(right) or not len(wrong):
        raise ValueError("a ROC curve needs right words and wrong ones")
    below, through = np.searchsorted(right, wrong, "left"), np.searchsorted(right, wrong, "right")
    return float((len(right) - through + 0.5 * (through - below)).sum() / (len(right) * len(wrong)))
