"""Array models against dictionaries: scores, files, pruning."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from lang_arpa_dict import ArpaDict

from asr_distill.errors import UserError
from asr_distill.lang.arpa import read_arpa, write_arpa
from asr_distill.lang.ngram import NgramConfig, train, train_arpa
from asr_distill.lang.ngram_model import NgramModel
from asr_distill.lang.ngram_scorer import NgramScorer, check_model
from asr_distill.lang.prune import pruned, with_backoffs

WORDS = ("A", "B", "C", "D")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "text"
    table = draw.dirichlet([0.5] * 5, size=(5, 5))
    lines = []
    for _ in range(150):
        words = [4, 4]
        while len(words) < 14 and (word := int(draw.choice(5, p=table[words[-2], words[-1]]))) < 4:
            words.append(word)
        lines.append(" ".join(WORDS[word] for word in words[2:]))
    path.write_text("\n".join(lines) + "\nE A\n")
    return path


def sentences(count: int, seed: int = 1) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    return [draw.choice([*WORDS, "STRANGE", "E"], size=draw.integers(0, 9)).tolist() for _ in range(count)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_scores_word_by_word(text: Path, tmp_path: Path, order: int) -> None:
    train_arpa(text, tmp_path / "lm.arpa", NgramConfig(order=order, prune=1e-3 if order == 3 else 0.0))
    said = sentences(300)
    reference = ArpaDict(tmp_path / "lm.arpa")
    found = NgramScorer(tmp_path / "lm.arpa").score(said)
    assert found == pytest.approx([reference.score(sentence, math.nan) for sentence in said], rel=1e-5)
    assert NgramScorer(tmp_path / "lm.arpa").score([]).shape == (0,)
    without = tmp_path / "without.arpa"
    without.write_text("".join(line for line in (tmp_path / "lm.arpa").read_text().splitlines(keepends=True)
                               if "<UNK>" not in line))
    counts = ArpaDict(without).ngrams
    lines = without.read_text().splitlines()
    for n in range(1, order + 1):
        lines[n] = f"ngram {n}={sum(len(ngram) == n for ngram in counts)}"
    without.write_text("\n".join(lines))
    found = NgramScorer(without, unknown_log=-7.0).score(said)
    assert found == pytest.approx([ArpaDict(without).score(sentence, -7.0) for sentence in said], rel=1e-5)


def test_forms_of_one_model(text: Path, tmp_path: Path) -> None:
    model = train(text, NgramConfig()).model
    write_arpa(model, tmp_path / "lm.arpa")
    with gzip.open(tmp_path / "lm.arpa.gz", "wb") as file:
        lines = (tmp_path / "lm.arpa").read_text().lower().splitlines()
        order = list(range(len(lines)))
        begin, end = lines.index("\\3-grams:") + 1, lines.index("\\end\\") - 1
        order[begin:end] = reversed(order[begin:end])  # in any order, in any case
        file.write("\n".join(lines[i] for i in order).encode())
    model.save(tmp_path / "arrays")
    said = sentences(50)
    expected = NgramScorer(model).score(said)
    for source in (tmp_path / "lm.arpa", tmp_path / "lm.arpa.gz", tmp_path / "arrays"):
        assert NgramScorer(source).score(said) == pytest.approx(expected, rel=1e-5)
    again = NgramModel.load(tmp_path / "arrays")
    assert again.words == model.words and again.sizes == model.sizes
    cache = tmp_path / "cache"
    first = NgramScorer(tmp_path / "lm.arpa", cache)
    made = (cache / "ngrams.json").stat().st_mtime_ns
    assert np.array_equal(NgramScorer(tmp_path / "lm.arpa", cache).score(said), first.score(said))
    assert (cache / "ngrams.json").stat().st_mtime_ns == made
    write_arpa(train(text, NgramConfig(order=2)).model, tmp_path / "lm.arpa")
    assert NgramScorer(tmp_path / "lm.arpa", cache).model.order == 2  # another file of that name


def test_damaged_folders(text: Path, tmp_path: Path) -> None:
    model = train(text, NgramConfig(order=2)).model
    with pytest.raises(UserError, match="no such file"):
        NgramScorer(tmp_path / "none", tmp_path / "cache")
    with pytest.raises(UserError, match="no such file"):
        NgramScorer(tmp_path)
    model.save(tmp_path)
    np.save(tmp_path / "log102.npy", model.tables[1].log10[:-1])
    with pytest.raises(UserError, match="sizes differ"):
        NgramModel.load(tmp_path)
    (tmp_path / "ngrams.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="not a language model"):
        NgramModel.load(tmp_path)


def test_an_ngram_without_its_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text("\\data\\\nngram 1=3\nngram 2=1\nngram 3=1\n\n"
                    "\\1-grams:\n-99 <s>\n-0.3 </s>\n-0.3 A\n\n\\2-grams:\n-0.1 A A\n\n"
                    "\\3-grams:\n-0.1 <s> A A\n\n\\end\\\n")
    with pytest.raises(UserError, match=r"lm\.arpa:15: .*lacks its history as an n-gram: '-0\.1 <s> A A'"):
        read_arpa(path)


def distribution(model: NgramModel, history: tuple[int, ...]) -> np.ndarray:
    """P(every word | history) by the definition of backoff, in double precision."""
    if not history:
        return 10 ** model.tables[0].log10.astype(np.float64)
    lower = distribution(model, history[1:])
    names = {tuple(row): i for _, ids in model.blocks(len(history) + 1) for i, row in enumerate(ids.tolist())}
    listed = {word: 10 ** float(model.tables[len(history)].log10[names[(*history, word)]])
              for word in range(len(model.words)) if (*history, word) in names}
    if not listed:
        return lower
    free = (1 - sum(listed.values())) / (1 - sum(lower[word] for word in listed))
    result = lower * free
    for word, probability in listed.items():
        result[word] = probability
    return result


def without(model: NgramModel, order: int, row: int) -> NgramModel:
    """The model up to `order`, less one n-gram, backoff weights made right."""
    keep = np.arange(len(model.tables[order - 1])) != row
    last = model.tables[order - 1]
    tables = [*model.tables[: order - 1], type(last)(last.keys[keep], last.log10[keep], last.backoff[keep])]
    return NgramModel(model.words, tables)


@pytest.mark.parametrize("own", [False, True], ids=["counted", "own"])
def test_pruning_by_definition(text: Path, own: bool) -> None:
    """An n-gram goes if the relative entropy that its loss costs, over all words, is below the threshold."""
    trained = train(text, NgramConfig())
    model, threshold = with_backoffs(trained.model), 2e-3
    small = pruned(model, threshold, None if own else trained.histories)
    lines = text.read_text().split("\n")
    tokens = [["<s>", *line.split(), "</s>"] for line in lines if line]
    total = sum(len(line) - 1 for line in tokens)
    kept: set[tuple[int, ...]] = set()
    for order in (3, 2):
        (_, ids), = model.blocks(order)
        children = {ngram[:-1] for ngram in kept if len(ngram) == order + 1}
        for row, ngram in enumerate(map(tuple, ids.tolist())):
            names = [model.words[i] for i in ngram[:-1]]
            if own:
                first = "</s>" if names[0] == "<s>" else names[0]
                share = distribution(model, ())[model.ids[first]]
                for at in range(1, order - 1):
                    share *= distribution(model, ngram[:at])[ngram[at]]
            else:
                share = sum(line[at : at + order - 1] == names for line in tokens
                            for at in range(len(line) - order + 1)) / total
            before = distribution(model, ngram[:-1])
            after = distribution(without(model, order, row), ngram[:-1])
            loss = math.expm1(share * float(np.sum(before[1:] * np.log(before[1:] / after[1:]))))
            assert abs(loss / threshold - 1) > 1e-3  # too near to tell
            if loss >= threshold or ngram in children:
                kept.add(ngram)
    found = {tuple(row) for order in (2, 3) for _, ids in small.blocks(order) for row in ids.tolist()}
    assert found == kept and 0 < len(found) < sum(model.sizes[1:]) * 2 / 3
    assert {len(ngram) for ngram in found} == {2, 3}
    check_model(small, "small", sample=1000, tolerance=1e-5)
    for history in itertools.product(range(len(small.words)), repeat=2):
        expected = distribution(small, history)
        ngrams = np.array([[*history, word] for word in range(len(small.words))])
        assert 10 ** small.last_log10(ngrams) == pytest.approx(expected, rel=1e-4)
