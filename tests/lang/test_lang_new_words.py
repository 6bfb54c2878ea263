"""Files of words that users add, and how each of them comes to be said."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_distill.errors import UserError
from asr_distill.lang.lexicon import Lexicon, Pronunciation
from asr_distill.lang.new_words import NewWord, positioned, pronounce, read_new_words

PHONES = ("SIL", "SPN_S", "AA_B", "AA_I", "N_B", "N_E", "IH_I", "K_B", "K_E", "S_E", "EY_S")


def write(folder: Path, text: str) -> Path:
    (folder / "words.txt").write_text(text)
    return folder / "words.txt"


def test_every_form_of_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, """# a comment
onnx\tAA N IH K S
ONNX AA1 N IH K
grapheme
VOSK 1e-3
VOSK AA S K
Kirsten like anna
Lena like Anna N AA
CHEAP .5 N
""")
    found = read_new_words(path, PHONES)
    assert found == {
        "ONNX": NewWord("ONNX", f"{path}:2", (("AA", "N", "IH", "K", "S"), ("AA", "N", "IH", "K"))),
        "GRAPHEME": NewWord("GRAPHEME", f"{path}:4"),
        "VOSK": NewWord("VOSK", f"{path}:5", (("AA", "S", "K"),), 1e-3),
        "KIRSTEN": NewWord("KIRSTEN", f"{path}:7", (), None, "ANNA"),
        "LENA": NewWord("LENA", f"{path}:8", (("N", "AA"),), None, "ANNA"),
        "CHEAP": NewWord("CHEAP", f"{path}:9", (("N",),), 0.5)}


def test_stress_stays_where_the_model_has_it(tmp_path: Path) -> None:
    found = read_new_words(write(tmp_path, "A AH0\nB AH0 B\n"), ("SIL", "AH0", "B"))
    assert [found[word].pronunciations for word in "AB"] == [(("AH0",),), (("AH0", "B"),)]
    with pytest.raises(UserError, match="no phone 'AH1'"):
        read_new_words(write(tmp_path, "A AH1\n"), ("SIL", "AH0", "B"))


@pytest.mark.parametrize("line, message", [
    ("ONNX AA XX S", r"no phone 'XX' \(of 'ONNX'\); it has AA EY IH K N S SIL SPN"),
    ("ONNX like", "needs a word that the recogniser knows"), ("ONNX 2 AA", r"probability 2 .* is not within \(0, 1\)"),
    ("ONNX 0", "is not within"), ("ONNX 1e-3 like ANNA", "a probability or 'like ANNA', not both"),
    ("<s> AA", "'<s>' is a reserved symbol"), ("FIRST like OTTO", "another 'like' here than in .*words.txt:1"),
    ("SECOND 1e-4", "another 'probability' here than in .*words.txt:2"),
])
def test_errors_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, f"FIRST like ANNA\nSECOND 1e-3\n{line}\n")
    with pytest.raises(UserError, match=rf"words.txt:3: .*{message}"):
        read_new_words(path, PHONES)


def test_a_file_without_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no words in it"):
        read_new_words(write(tmp_path, "# nothing\n\n"), PHONES)
    with pytest.raises(UserError, match="no such file"):
        read_new_words(tmp_path / "absent", PHONES)


@pytest.fixture(scope="module")
def cmudict() -> Lexicon:
    return Lexicon.from_cmudict()


@pytest.fixture(autouse=True)
def loaded_once(cmudict: Lexicon, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds."""
    monkeypatch.setattr(Lexicon, "from_cmudict", lambda strip_stress: cmudict)


ALL_PHONES = "THE QUICK BROWN FOX JUMPS OVER A LAZY DOG VISION CHURCH JOY HOUSE THING SHOW BOOK AIR YOU AH OFF WAY THAT"


def test_dictionary_first_then_letters(cmudict: Lexicon) -> None:
    lexicon = cmudict.restricted(ALL_PHONES.split()).positioned()
    words = [NewWord("DOG", "w:1"), NewWord("FOX", "w:2", (("F", "AA"),)), NewWord("TOMATO", "w:3"),
             NewWord("XQZ", "w:4"), NewWord("O'W.K-", "w:5")]
    made = pronounce(words, lexicon, spell=True)
    assert "DOG" not in made.entries  # it has it, and nothing new is said
    assert made.entries["FOX"] == (("F", "AA"),) and made.origin["FOX"] == "file"
    assert made.entries["TOMATO"] == (("T", "AH", "M", "EY", "T", "OW"), ("T", "AH", "M", "AA", "T", "OW"))
    assert made.origin["TOMATO"] == "CMUdict" and made.origin["XQZ"] == "letters"
    assert " ".join(made.entries["XQZ"][0]) == "EH K S K Y UW Z IY"
    assert " ".join(made.entries["O'W.K-"][0]) == "OW D AH B AH L Y UW K EY"
    with pytest.raises(UserError, match=r"w:9: the name of '2' \(of 'B2B'\) is not known"):
        pronounce([NewWord("B2B", "w:9")], lexicon, spell=True)


def test_words_of_phones_that_the_model_lacks_are_no_answer_of_the_dictionary() -> None:
    lexicon = Lexicon({"NO": [Pronunciation(("N", "OW"))], "NET": [Pronunciation(("N", "EH", "T"))]})
    with pytest.raises(UserError, match=r"w:1: the name of 'Z'"):  # Z IY in CMUdict
        pronounce([NewWord("ZOO", "w:1")], lexicon, spell=True)


def test_letters_that_nobody_lists_are_guessed(tmp_path: Path) -> None:
    pytest.importorskip("phonetisaurus")
    lexicon = Lexicon({word: [Pronunciation(tuple(word.lower()))] for word in
                       ("TAN", "NAT", "ANT", "TANT", "NAN", "ATAN", "TATA", "NATAN")})
    made = pronounce([NewWord("TANATA", "w:1")], lexicon, cache=tmp_path / "g2p")
    assert made.entries == {"TANATA": (tuple("tanata"),)} and made.origin == {"TANATA": "g2p"}
    kept = list((tmp_path / "g2p").glob("g2p-*/g2p.json"))
    before = kept[0].stat().st_mtime_ns
    assert pronounce([NewWord("TANATA", "w:1")], lexicon, cache=tmp_path / "g2p") == made
    assert len(kept) == 1 and kept[0].stat().st_mtime_ns == before  # not trained again
    with pytest.raises(UserError, match="words: cannot pronounce 'B2B'"):
        pronounce([NewWord("B2B", "words:1")], lexicon, cache=tmp_path / "g2p")


def test_phones_get_their_places() -> None:
    entries = {"ONNX": (("AA", "N"), ("EY",)), "SAME": (("AA", "IH", "K"),)}
    made = positioned(entries, PHONES, {}, position_dependent=True)
    assert [p.phones for p in made["ONNX"]] == [("AA_B", "N_E"), ("EY_S",)]
    assert [p.phones for p in made["SAME"]] == [("AA_B", "IH_I", "K_E")]
    with pytest.raises(UserError, match=r"w:7: 'BAD' would need the phone 'N_S', the recogniser has N_B N_E; say"):
        positioned({"BAD": (("N",),)}, PHONES, {"BAD": "w:7"}, position_dependent=True)
    plain = positioned({"BAD": (("N",),)}, ("SIL", "N"), {}, position_dependent=False)
    assert [p.phones for p in plain["BAD"]] == [("N",)]
