"""Measures of confidences by hand, by counting pairs, and by a stock library."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from asr_distill.decode.confidence import correct_words, normalised_cross_entropy, roc_area


def test_cross_entropy_by_hand() -> None:
    correct = np.array([True, True, True, False])
    apart = -(3 * math.log2(0.75) + math.log2(0.25))
    assert normalised_cross_entropy(np.full(4, 0.75), correct) == pytest.approx(0.0, abs=1e-12)
    assert normalised_cross_entropy(correct.astype(float), correct) == pytest.approx(1.0, abs=1e-4)
    found = normalised_cross_entropy(np.array([0.9, 0.8, 0.5, 0.4]), correct)
    assert found == pytest.approx((apart + math.log2(0.9 * 0.8 * 0.5 * 0.6)) / apart)
    assert normalised_cross_entropy(np.ones(4), correct) < -4 and math.isfinite(
        normalised_cross_entropy(1.0 - correct, correct))


@pytest.mark.parametrize("seed", range(5))
def test_roc_area_equals_all_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    correct = random.random(60) < 0.7
    confidences = np.round(random.random(60) + 0.3 * correct, 1)  # with ties
    pairs = itertools.product(confidences[correct], confidences[~correct])
    assert roc_area(confidences, correct) == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))


def test_nothing_to_tell_apart() -> None:
    for measure, correct in itertools.product((normalised_cross_entropy, roc_area), (np.ones(3), np.zeros(3))):
        with pytest.raises(ValueError, match="right words and wrong ones"):
            measure(np.full(3, 0.5), correct)


def test_correct_words() -> None:
    assert correct_words("a b c d".split(), "a x c d e".split()).tolist() == [True, False, True, True, False]
    assert correct_words(["a"], []).tolist() == [] and correct_words([], ["a"]).tolist() == [False]
    assert correct_words("a b".split(), ["b"]).tolist() == [True]
