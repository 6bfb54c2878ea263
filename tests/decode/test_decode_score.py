"""Word error rate, its interval and the tests between systems, against plain computations."""

from __future__ import annotations

import math

import kaldialign
import numpy as np
import pytest

from asr_distill.decode.score import compare, error_counts, resample, score
from asr_distill.decode.segments import error_slots, matched_pairs_p, segment_differences
from asr_distill.errors import UserError


def edit_distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Levenshtein's distance by plain dynamic programming."""
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def random_texts(random: np.random.Generator, number: int, length: int = 12) -> dict[str, tuple[str, ...]]:
    return {f"u{i}": tuple(random.choice(list("abcde"), size=random.integers(0, length)).tolist())
            for i in range(number)}


def corrupt(random: np.random.Generator, words: tuple[str, ...], rate: float) -> tuple[str, ...]:
    return tuple("X" if random.random() < rate else word for word in words if random.random() > rate / 3)


def test_counts_equal_plain_edit_distance() -> None:
    random = np.random.default_rng(1)
    references, hypotheses = random_texts(random, 300), random_texts(random, 300)
    counts = error_counts(references, hypotheses)
    assert counts.sum(1).tolist() == [edit_distance(references[id], hypotheses[id]) for id in references]
    lengths = np.array([len(hypotheses[id]) - len(references[id]) for id in references])
    assert (counts[:, 1] - counts[:, 2] == lengths).all()  # insertions - deletions


def test_hand_case() -> None:
    references = {"a": "the cat sat on the mat".split(), "b": ["yes"], "c": []}
    hypotheses = {"a": "the cat sit on mat today".split(), "b": ["yes"], "c": ["oh"]}
    result = score(references, hypotheses)
    assert (result.substitutions, result.deletions, result.insertions) == (1, 1, 2)
    assert (result.words, result.utterances, result.wrong_utterances) == (7, 3, 2)
    assert result.wer == pytest.approx(400 / 7)
    assert result.wer_low <= result.wer <= result.wer_high


def test_interval_equals_the_binomial_one() -> None:
    # One word an utterance: the errors are binomial, so the interval is the normal approximation's.
    number, wrong = 4000, 800
    references = {f"u{i}": ["a"] for i in range(number)}
    hypotheses = {f"u{i}": ["b" if i < wrong else "a"] for i in range(number)}
    result = score(references, hypotheses)
    half = 1.96 * 100 * math.sqrt(0.2 * 0.8 / number)
    assert result.wer == pytest.approx(20)
    assert result.wer_high - result.wer == pytest.approx(half, rel=0.05)
    assert result.wer - result.wer_low == pytest.approx(half, rel=0.05)


def test_interval_agrees_with_kaldialign() -> None:
    random = np.random.default_rng(6)
    references = {f"u{i}": tuple("abcdefghij"[:random.integers(1, 11)]) for i in range(200)}
    hypotheses = {id: corrupt(random, words, 0.2) for id, words in references.items()}
    result = score(references, hypotheses)
    other = kaldialign.bootstrap_wer_ci([list(words) for words in references.values()],
                                        [list(words) for words in hypotheses.values()], replications=2000)
    half = (result.wer_high - result.wer_low) / 2
    assert half == pytest.approx(100 * other["ci95"], rel=0.08)
    assert result.wer == pytest.approx(100 * other["wer"], abs=half / 5)


def test_same_seed_same_interval() -> None:
    random = np.random.default_rng(2)
    references = random_texts(random, 50)
    hypotheses = {id: corrupt(random, words, 0.2) for id, words in references.items()}
    assert score(references, hypotheses) == score(references, hypotheses)
    assert score(references, hypotheses, seed=7).wer_low != score(references, hypotheses).wer_low


def test_speaker_blocks_widen_the_interval() -> None:
    # Ten speakers, each all right or all wrong: the error rate's deviation is that of ten draws, not of a thousand.
    references = {f"u{i}": ["a"] for i in range(1000)}
    speakers = {f"u{i}": f"s{i % 10}" for i in range(1000)}
    hypotheses = {id: ["a" if int(speakers[id][1]) < 5 else "b"] for id in references}
    by_utterance = score(references, hypotheses)
    by_speaker = score(references, hypotheses, speakers=speakers)
    assert by_utterance.wer_high - by_utterance.wer_low == pytest.approx(2 * 1.96 * 50 / math.sqrt(1000), rel=0.06)
    # of a binomial(10, 1/2): 2 to 8
    assert (by_speaker.wer_low, by_speaker.wer_high) == (pytest.approx(20), pytest.approx(80))
    with pytest.raises(UserError, match="no speaker is known for 1 utterances, for example u0"):
        score(references, hypotheses, speakers={id: "s" for id in references if id != "u0"})


def test_resample_has_the_right_mean_and_deviation() -> None:
    values = np.array([[1, 10], [2, 20], [6, 30]])
    drawn = resample(values, np.arange(3), 50_000, seed=3)
    assert drawn.mean(0) == pytest.approx(values.sum(0), rel=0.01)
    assert drawn.std(0) == pytest.approx(math.sqrt(3) * values.std(0), rel=0.02)


def test_utterances_must_agree() -> None:
    with pytest.raises(UserError, match="2 of 3 utterances without a hypothesis: b, c"):
        score({"a": ["x"], "b": ["x"], "c": ["x"]}, {"a": ["x"]})
    with pytest.raises(UserError, match="without a reference: z"):
        score({"a": ["x"]}, {"a": ["x"], "z": ["x"]})
    with pytest.raises(UserError, match="no words"):
        score({"a": []}, {"a": ["x"]})


def test_segments_by_hand() -> None:
    reference = "a b c d e f g h i j".split()
    system_a = "a X c d e f g h i j".split()  # b wrong
    system_b = "a X c X e f Y g h i k".split()  # b, d wrong; Y inserted; j wrong
    # b and d: one right word between, one segment; e, f right, then the insertion; g, h, i right, then j
    assert segment_differences(reference, system_a, system_b).tolist() == [1, 1, 1]
    assert segment_differences(reference, reference, reference).tolist() == []
    assert segment_differences([], ["x"], []).tolist() == [-1]
    assert error_slots(["a", "b"], ["x", "a"]).sum() == 2


def test_matched_pairs_p_by_hand() -> None:
    differences = np.array([1, 1, 0, -1, 2, 1, 0, 1])
    z = differences.mean() / (differences.std(ddof=1) / math.sqrt(8))
    assert matched_pairs_p(differences) == pytest.approx(2 * (1 - 0.5 * (1 + math.erf(z / math.sqrt(2)))))
    assert matched_pairs_p(-differences) == matched_pairs_p(differences)
    assert matched_pairs_p(np.zeros(5)) == 1.0
    assert matched_pairs_p(np.array([3])) == 1.0
    assert matched_pairs_p(np.ones(5)) == pytest.approx(2 * 0.5**5)
    assert matched_pairs_p(np.zeros(0)) == 1.0


def test_compare_is_antisymmetric_and_knows_equals() -> None:
    random = np.random.default_rng(4)
    references = {f"u{i}": tuple("abcdefghij") for i in range(100)}
    a = {id: corrupt(random, words, 0.3) for id, words in references.items()}
    b = {id: corrupt(random, words, 0.1) for id, words in references.items()}
    forward, backward = compare(references, a, b), compare(references, b, a)
    assert forward.wer_difference == -backward.wer_difference < 0
    assert forward.difference_high < 0
    assert forward.p == backward.p < 1e-6
    assert forward.p_bootstrap < 1e-3
    assert forward.wer_a == score(references, a).wer
    same = compare(references, a, a)
    assert (same.p, same.p_bootstrap, same.wer_difference) == (1.0, 1.0, 0.0)


@pytest.mark.slow
def test_p_is_calibrated_under_the_null() -> None:
    # Two systems with errors of one kind: p below alpha must come up in a share alpha of trials.
    random = np.random.default_rng(5)
    references = {f"u{i}": tuple("abcdefghijkl") for i in range(80)}
    trials = 300
    p = np.empty((trials, 2))
    for trial in range(trials):
        a, b = ({id: corrupt(random, words, 0.12) for id, words in references.items()} for _ in range(2))
        result = compare(references, a, b, resamples=1000)
        p[trial] = result.p, result.p_bootstrap
    for alpha in (0.05, 0.2, 0.5):
        allowed = 3 * math.sqrt(alpha * (1 - alpha) / trials)
        assert np.abs((p < alpha).mean(0) - alpha).max() < allowed, (alpha, (p < alpha).mean(0))
