"""Language models against dictionaries, mitlm and hand computation."""

from __future__ import annotations

import math
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from lang_arpa_dict import ArpaDict

from asr_distill.errors import UserError
from asr_distill.lang.arpa import read_arpa
from asr_distill.lang.ngram import NgramConfig, train_arpa
from asr_distill.lang.ngram_scorer import NgramScorer, check_model

HAND = """
\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-99 <s> -0.2730
-0.60206 </s>
-0.60206 A -0.30103
-0.60206 B
-0.60206 <unk>

\\2-grams:
-0.22185 <s> A
-0.30103 A B
-0.60206 A </s>

\\end\\
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Sentences of a random process with Zipf's frequencies."""
    generator = np.random.default_rng(0)
    path = tmp_path / "text.txt"
    lines = []
    for _ in range(2000):
        state, line = 0, []
        for _ in range(generator.integers(1, 9)):
            state = min(int(generator.zipf(1.5)) + state % 3, 400)
            line.append(f"w{state}")
        lines.append(" ".join(line))
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def test_perplexity_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "hand.arpa"
    path.write_text(HAND)
    scorer = NgramScorer(path)
    result = scorer.perplexity([["A", "B"], ["B", "X", "A"]])
    # <s> A, A B, B </s> | <s> B (backoff), X unknown, <UNK> A, A </s>
    first, second = -0.22185 - 0.30103 - 0.60206, -0.2730 - 0.60206 - 0.60206 - 0.60206
    assert result.log10 == pytest.approx(first + second)
    assert result.perplexity == pytest.approx(10 ** (-(first + second) / 6))
    assert (result.words, result.unknown, result.unknown_rate) == (5, 1, 0.2)
    # In a sentence's score the unknown word is <UNK>.
    assert scorer.score([["A", "B"], ["B", "X", "A"]]) == pytest.approx(
        [math.log(10) * first, math.log(10) * (second - 0.60206)])


def test_broken_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    for text, message in [
        (HAND.replace("-0.30103 A B", "-0.01 A B"), "broken language model: .* after 'A' sum to"),
        (HAND.replace("-0.60206 B", "-0.1 B"), "broken language model"),
        (HAND.replace("-0.60206 </s>", "-0.60206 C").replace("A </s>", "A C"), "lacks <s> or </s>"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            check_model(read_arpa(path), "lm")


@pytest.mark.parametrize("broken, message", [
    (HAND.replace("\\end\\", ""), "truncated"),
    (HAND.replace("ngram 2=3", "ngram 2=4"), "promises"),
    (HAND.replace("-0.22185 <s> A", "x <s> A"), r"lm\.arpa:14: not a 2-gram line"),
    (HAND.replace("-0.22185 <s> A", "-0.22185 <s>"), "not a 2-gram line"),
    (HAND.replace("-0.22185 <s> A", "0.5 <s> A"), "not a 2-gram line"),
    (HAND.replace("-0.22185 <s> A", "nan <s> A"), "not a 2-gram line"),
    (HAND.replace("-0.22185 <s> A", "-0.22185 <s> C"), "not a 2-gram line"),
    (HAND.replace("-0.22185 <s> A", "-0.22185 A B"), "has a 2-gram twice"),
    (HAND.replace("-0.60206 B", "-0.60206 a"), "has the word 'A' twice"),
    (HAND.replace("\\2-grams", "\\3-grams"), "not a 3-gram line"),
    (HAND.replace("\\2-grams:\n-0.22185 <s> A", "\\3-grams:\n-0.22185 <s> A B"), "not a 3-gram line"),
    ("\\data\\\n\\end\\\n", "without n-grams"),
    ("hello\n", "truncated or not an ARPA model"),
])
def test_malformed_arpa(tmp_path: Path, broken: str, message: str) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(broken)
    with pytest.raises(UserError, match=message):
        read_arpa(path)


def by_dictionaries(sentences: list[list[str]], words: list[str]) -> dict[tuple[str, ...], float]:
    """Bigram interpolated modified Kneser-Ney, word by word: P(w | v) of all pairs, and P(w)."""
    pairs = Counter(pair for s in sentences for pair in zip(["<s>", *s], [*s, "</s>"], strict=True))
    follows: dict[str, set[str]] = defaultdict(set)
    for left, right in pairs:
        follows[right].add(left)
    continuation = {word: len(follows[word]) for word in words}

    def discounts(counts: list[int]) -> list[float]:
        n1, n2, n3, n4 = (sum(c == k for c in counts) for k in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        return [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]

    fallback = [0, 0.5, 1.0, 1.5]
    values = list(continuation.values())
    low = discounts(values) if all(values.count(k) for k in (1, 2, 3, 4)) else fallback
    if not all(0 < d < k for k, d in enumerate(low) if k):
        low = fallback
    high = discounts(list(pairs.values()))
    everything = sum(continuation.values())
    spread = sum(low[min(c, 3)] for c in values) / everything
    result = {(w,): (c - low[min(c, 3)]) / everything + spread / len(words) for w, c in continuation.items()}
    for left in {pair[0] for pair in pairs}:
        seen = {right: c for (other, right), c in pairs.items() if other == left}
        total = sum(seen.values())
        gamma = sum(high[min(c, 3)] for c in seen.values()) / total
        for word in words:
            c = seen.get(word, 0)
            result[left, word] = (c - high[min(c, 3)]) / total + gamma * result[word,]
    return result


def test_bigrams_by_dictionaries(text: Path, tmp_path: Path) -> None:
    figures = train_arpa(text, tmp_path / "lm.arpa", NgramConfig(order=2))
    sentences = [line.upper().split() for line in text.read_text().splitlines() if line]
    words = sorted({word for s in sentences for word in s} | {"</s>", "<UNK>"})
    model = ArpaDict(tmp_path / "lm.arpa")
    expected = by_dictionaries(sentences, words)
    assert figures["sentences"] == 2000 and figures["words"] == sum(map(len, sentences))
    assert len(expected) > 2000
    for (*history, word), probability in expected.items():
        assert 10 ** model.log10(history, word) == pytest.approx(probability, rel=1e-5)


def test_trigrams_by_mitlm(text: Path, tmp_path: Path) -> None:
    """mitlm's ModKN comes with phonetisaurus."""
    pytest.importorskip("phonetisaurus")
    from asr_distill.lang import g2p

    upper, theirs = tmp_path / "upper.txt", tmp_path / "theirs.arpa"
    upper.write_text(text.read_text().upper().rstrip() + "\nW1 <UNK>\n")
    try:
        g2p._tool("estimate-ngram", "-o", "3", "-t", str(upper), "-wl", str(theirs))
    except (UserError, subprocess.SubprocessError) as error:
        pytest.skip(str(error))
    theirs.write_text(theirs.read_text().replace("-inf", "-99"))
    train_arpa(upper, tmp_path / "ours.arpa", NgramConfig(order=3))
    ours, reference = ArpaDict(tmp_path / "ours.arpa"), ArpaDict(theirs)
    assert ours.ngrams.keys() == reference.ngrams.keys()
    for ngram, log10 in reference.ngrams.items():
        assert ours.ngrams[ngram] == pytest.approx(log10, abs=2e-5), ngram


def test_vocabulary_and_unknown_words(text: Path, tmp_path: Path) -> None:
    figures = train_arpa(text, tmp_path / "lm.arpa", NgramConfig(order=3, vocabulary=10))
    model = read_arpa(tmp_path / "lm.arpa")
    assert figures["vocabulary"] == 10 and len(model.words) == 13  # <s>, </s>, <UNK>
    assert 0.02 < figures["unknown_rate"] < 0.6
    check_model(model, "lm", sample=10000, tolerance=1e-4)
    train_arpa(text, tmp_path / "given.arpa", words=["W1", "NEVER"])
    given = ArpaDict(tmp_path / "given.arpa")
    assert set(given.words) == {"</s>", "<UNK>", "W1", "NEVER"}
    assert -9 < given.log10((), "NEVER") < 0


def test_pruning_keeps_a_sound_model(text: Path, tmp_path: Path) -> None:
    full = train_arpa(text, tmp_path / "full.arpa")
    pruned = train_arpa(text, tmp_path / "pruned.arpa", NgramConfig(prune=1e-4))
    assert pruned["ngrams"][2] < full["ngrams"][2] / 2
    assert full["perplexity"] < pruned["perplexity"] < 2 * full["perplexity"]
    check_model(read_arpa(tmp_path / "pruned.arpa"), "pruned", sample=10000)


def test_words_from_a_file(text: Path, tmp_path: Path) -> None:
    (tmp_path / "lexicon").write_text("w1\tAH\nW2 T UW\nW2 T AH\nNEVER N\n\n")
    figures = train_arpa(text, tmp_path / "lm.arpa", NgramConfig(words=tmp_path / "lexicon"))
    assert set(read_arpa(tmp_path / "lm.arpa").words) == {"<s>", "</s>", "<UNK>", "W1", "W2", "NEVER"}
    assert figures["vocabulary"] == 3
    train_arpa(text, tmp_path / "lm.arpa", NgramConfig(words=tmp_path / "lexicon", vocabulary=2))
    assert set(read_arpa(tmp_path / "lm.arpa").words) == {"<s>", "</s>", "<UNK>", "W1", "W2"}
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UserError, match="without words"):
        train_arpa(text, tmp_path / "lm.arpa", NgramConfig(words=tmp_path / "empty"))


def test_wrong_texts_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("\n \n")
    with pytest.raises(UserError, match="no words"):
        train_arpa(path, tmp_path / "lm")
    path.write_text("A B\n<s> A\n")
    with pytest.raises(UserError, match="text:2: <s> and </s>"):
        train_arpa(path, tmp_path / "lm")
    assert not (tmp_path / "lm").exists()
    for settings in ({"order": 9}, {"vocabulary": -1}, {"prune": 1.0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            NgramConfig(**settings)


@pytest.mark.slow
def test_reference_model(shared: Path) -> None:
    path = shared / "reference" / "lm_small.arpa.xz"
    model = read_arpa(path)
    check_model(model, "lm_small")
    folder = shared / "librispeech" / "LibriSpeech" / "dev-clean-2"
    lines = [line.split()[1:] for file in folder.glob("*/*/*.trans.txt") for line in file.read_text().splitlines()]
    result = NgramScorer(model).perplexity(lines)
    # Its README gives 273.3 and 1.63 % on all of dev-clean-2; this is a slice of it.
    assert result.perplexity == pytest.approx(273.3, rel=0.15)
    assert result.unknown_rate < 0.03 and math.isfinite(result.log10)
    reference = ArpaDict(path)
    assert NgramScorer(model).score(lines) == pytest.approx([reference.score(line, -1.0) for line in lines], rel=1e-6)
