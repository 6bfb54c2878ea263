"""Real speech: a word that a recogniser never had is heard once it is added, and a grammar narrows what is heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asr_distill.decode.graph import compile_hclg
from asr_distill.export.bundle import export_bundle
from asr_distill.export.source import Source
from asr_distill.export.transcribe import Transcriber
from asr_distill.export.vocabulary import VocabularyConfig, change_vocabulary
from asr_distill.lang.lang import add_grammar, with_lexicon
from asr_distill.lang.lexicon import without_position

pytestmark = pytest.mark.slow


def hidden(source: Source, arpa: Path, words: set[str], work: Path) -> Path:
    """The recogniser as it would be if lexicon and language model had never had the words."""
    lexicon = source.lang.lexicon.restricted(word for word in source.lang.lexicon.words if word not in words)
    lang = with_lexicon(source.lang, lexicon, work / "lang")
    add_grammar(lang, arpa)
    compile_hclg(lang, source.hmm, work / "graph")
    export_bundle(source.model, source.hmm, lang, work / "graph", source.search, source.features, work / "recogniser")
    return work / "recogniser"


def heard(directory: Path, files: list[Path]) -> list[tuple[str, ...]]:
    transcriber = Transcriber(directory)
    return [tuple(transcriber.transcribe(file, word_times=False).text.split()) for file in files]


def test_added_words_are_heard_and_a_grammar_alone(student: Any, tmp_path: Path) -> None:
    source = Source.open(student.recogniser)
    spoken = [words for _, _, words in student.utterances]
    files = [path for _, path, _ in student.utterances]
    whole = heard(student.recogniser, files)
    flat = [word for words in spoken for word in words]
    once = [word for said, words in zip(spoken, whole, strict=True) for word in dict.fromkeys(said)
            if len(word) > 6 and flat.count(word) == 1 and word in words][:4]
    assert len(once) == 4, "a student that has learned nothing proves nothing"
    without = heard(hidden(source, student.recogniser.parent / "lm.arpa", set(once), tmp_path / "without"), files)
    assert not any(word in words for words in without for word in once)
    said = {word: source.lang.lexicon.pronunciations(word)[0].phones for word in once}
    lines = [f"{word}\t{' '.join(map(without_position, phones))}" for word, phones in said.items()]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    change_vocabulary(tmp_path / "without/recogniser", tmp_path / "new", VocabularyConfig(words=tmp_path / "words.txt"))
    again = heard(tmp_path / "new", files)
    assert sum(any(word in words for words in again) for word in once) >= 3
    (tmp_path / "phrases.txt").write_text("\n".join(" ".join(words) for words in spoken))
    change_vocabulary(student.recogniser, tmp_path / "phrases", VocabularyConfig(grammar=tmp_path / "phrases.txt"))
    found = heard(tmp_path / "phrases", files)
    assert set(found) <= set(spoken) and sum(map(tuple.__eq__, found, spoken)) >= len(spoken) - 1
