"""Small grammars: exactly the listed sentences, with the probabilities that their weights say; errors by place."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from asr_distill.errors import UserError
from asr_distill.lang import phrase_graph as module
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.phrase_graph import phrase_graph
from asr_distill.lang.phrases import read_phrases, words_of


def sentences(text: str, path: Path) -> dict[str, float]:
    """Every sentence that the acceptor of a grammar takes, and its probability."""
    path.write_text(text)
    phrase = read_phrases(path)
    names = ["<eps>", *sorted(words_of(phrase))]
    graph = phrase_graph(phrase, {name: index for index, name in enumerate(names)})
    check_sound(graph)
    found: dict[str, float] = {}

    def walk(state: int, said: tuple[str, ...], probability: float) -> None:
        if np.isfinite(graph.finals[state]):
            text = " ".join(said)
            assert text not in found  # deterministic: each sentence has one path
            found[text] = probability * math.exp(-float(graph.finals[state]))
        for arc in range(graph.offsets[state], graph.offsets[state + 1]):
            walk(int(graph.nextstates[arc]), (*said, names[graph.ilabels[arc]]),
                 probability * math.exp(-float(graph.weights[arc])))

    walk(graph.start, (), 1.0)
    return found


def check_sound(graph: FstArrays) -> None:
    mass = np.bincount(graph.sources(), np.exp(-graph.weights.astype(float)), graph.num_states)
    np.testing.assert_allclose(mass + np.exp(-graph.finals.astype(float)), 1, atol=1e-6)
    for begin, end in itertools.pairwise(graph.offsets.tolist()):
        assert (np.diff(graph.ilabels[begin:end]) > 0).all()  # sorted, and no word twice
    assert (graph.ilabels == graph.olabels).all()


def test_exactly_the_listed_sentences(tmp_path: Path) -> None:
    found = sentences("""# what a lamp understands
turn the (light | lamp) [please] (on | off)   # eight sentences

stop
[good [bye]] lamp
""", tmp_path / "g.txt")
    expected = {" ".join(("TURN THE", thing, *please, way)): 1 / 24 for thing in ("LIGHT", "LAMP")
                for please in ((), ("PLEASE",)) for way in ("ON", "OFF")}
    expected |= {"STOP": 1 / 3, "LAMP": 1 / 6, "GOOD LAMP": 1 / 12, "GOOD BYE LAMP": 1 / 12}
    assert found == pytest.approx(expected)


def test_weights_count_within_their_choice(tmp_path: Path) -> None:
    found = sentences("/3/ stop\ngo (/0.5/ on | /1.5/ home [/4/ now])", tmp_path / "g.txt")
    assert found == pytest.approx({"STOP": 0.75, "GO ON": 0.0625, "GO HOME": 0.0375, "GO HOME NOW": 0.15})


def test_sentences_that_can_be_read_in_several_ways_are_heard_once(tmp_path: Path) -> None:
    found = sentences("a b\n[a] [a] b\n(a | a b | a a) [b]", tmp_path / "g.txt")
    assert found == pytest.approx({"A B": 1 / 3 + 1 / 6 + 1 / 18 + 1 / 18, "B": 1 / 12, "A A B": 1 / 12 + 1 / 18,
                                   "A": 1 / 18, "A B B": 1 / 18, "A A": 1 / 18})


def test_choices_by_lot_against_their_expansion(tmp_path: Path) -> None:
    """Sentences are drawn from the nested alternatives in Python, and their probabilities counted."""
    random = np.random.default_rng(0)

    def grown(depth: int) -> tuple[str, dict[tuple[str, ...], float]]:
        kind = random.integers(4) if depth else 0
        if kind == 0:
            word = str(random.choice(["a", "b", "c"]))
            return word, {(word.upper(),): 1.0}
        parts = [grown(depth - 1) for _ in range(random.integers(1, 4))]
        if kind == 1:
            joined: dict[tuple[str, ...], float] = {(): 1.0}
            for _, part in parts:
                joined = summed((x + y, p * q) for x, p in joined.items() for y, q in part.items())
            return " ".join(text for text, _ in parts), joined
        weights = random.integers(1, 9, len(parts)).tolist()
        total = sum(weights) + (kind == 3)
        mixed = summed((x, p * weight / total) for weight, (_, part) in zip(weights, parts, strict=True)
                       for x, p in part.items())
        text = " | ".join(f"/{weight}/ {text}" for weight, (text, _) in zip(weights, parts, strict=True))
        if kind == 2:
            return f"({text})", mixed
        return f"[{text}]", summed([*mixed.items(), ((), 1 / total)])

    def summed(pairs) -> dict[tuple[str, ...], float]:  # type: ignore[no-untyped-def]
        result: dict[tuple[str, ...], float] = {}
        for sentence, probability in pairs:
            result[sentence] = result.get(sentence, 0.0) + probability
        return result

    for number in range(40):
        text, expected = grown(3)
        found = sentences(text, tmp_path / f"{number}.txt")
        assert found == pytest.approx({" ".join(words): p for words, p in expected.items()}, abs=1e-6), text


def test_phrases_as_vosk_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    assert sentences(json.dumps(["turn on", "Turn Off", "stop"]), path) == pytest.approx(
        {"TURN ON": 1 / 3, "TURN OFF": 1 / 3, "STOP": 1 / 3})
    for wrong, message in [('{"a": 1}', "must be a list of phrases"), ("[1]", "must be a list of phrases"),
                           ('["a", "b ("]', r"phrase 2 has the sign '\('"), ("[]", "no phrases in it"),
                           ('["a", "[unk]"]', r"phrase 2: \[unk\] is not offered"), ("[", "not valid JSON")]:
        path.write_text(wrong)
        with pytest.raises(UserError, match=rf"g.json: {message}"):
            read_phrases(path)


@pytest.mark.parametrize("line, column, message", [
    ("turn (on", 6, r"'\(' is not closed"), ("turn [on (off", 10, r"'\(' is not closed"), ("(", 1, "is not closed"),
    ("turn ) on", 6, r"'\)' closes nothing"), ("a | b", 3, r"outside of brackets: write \(a \| b\)"),
    ("(a ]", 4, r"'\]' does not close '\('"), ("(a | ) b", 6, "an alternative without words"),
    ("()", 2, "an alternative without words"), ("go [unk]", 4, r"\[unk\] is not offered"),
    ("/x/ a", 1, "'/x/' is not a weight above 0"), ("/0/ a", 1, "'/0/' is not a weight"),
    ("/nan/ a", 1, "'/nan/' is not a weight"), ("a /2/ b", 3, "a weight stands at the beginning"),
    ("/3/", 4, "a weight without words"), ("/3/  # stop", 4, "a weight without words"),
    ("ac/dc", 3, "'/' belongs to nothing"), ("say <s>", 5, "'<s>' is a reserved symbol"),
    ("(" * 60 + "a" + ")" * 60, 51, "more than 50 brackets"),
])
def test_errors_name_line_and_column(tmp_path: Path, line: str, column: int, message: str) -> None:
    path = tmp_path / "g.txt"
    path.write_text(f"# a comment\nstop\n{line}\n")
    with pytest.raises(UserError, match=rf"g.txt:3:{column}: .*{message}"):
        read_phrases(path)


def test_a_byte_order_mark_is_no_word(tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_text("# a comment\nstop\n", encoding="utf-8-sig")
    assert set(words_of(read_phrases(path))) == {"STOP"}
    (tmp_path / "g.json").write_text('["stop"]', encoding="utf-8-sig")
    assert set(words_of(read_phrases(tmp_path / "g.json"))) == {"STOP"}


def test_words_know_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_text("stop\n turn (it | them) on\nturn off")
    assert words_of(read_phrases(path)) == {"STOP": f"{path}:1:1", "TURN": f"{path}:2:2", "IT": f"{path}:2:8",
                                            "THEM": f"{path}:2:13", "ON": f"{path}:2:19", "OFF": f"{path}:3:6"}
    path.write_text("# nothing\n\n")
    with pytest.raises(UserError, match="no phrases in it"):
        read_phrases(path)
    with pytest.raises(UserError, match="no such file"):
        read_phrases(tmp_path / "absent.txt")


def test_a_grammar_that_grows_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STATES", 20)
    with pytest.raises(UserError, match="more than 20 states"):
        sentences("a b c d e f g h i j k l m n o p q r s t u v", tmp_path / "g.txt")
