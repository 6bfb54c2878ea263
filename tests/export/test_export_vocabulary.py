"""Other words for the recogniser of tones: they are heard, the directory is whole, and wrong files are named."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr_distill.cli import main
from asr_distill.decode.graph import compile_hclg
from asr_distill.errors import UserError
from asr_distill.export.bundle import Bundle
from asr_distill.export.exporter import exporter_of
from asr_distill.export.exporting import export, settings_of
from asr_distill.export.manifest import read_manifest
from asr_distill.export.source import Source
from asr_distill.export.transcribe import Transcriber
from asr_distill.export.vocabulary import VocabularyConfig, change_vocabulary
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.backoff_graph import BackoffGraph
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.lang import Lang, add_grammar, with_lexicon
from asr_distill.lang.lexicon import Lexicon, Pronunciation
from asr_distill.lang.ngram import NgramConfig, train_arpa

RATE = 16000
ALSO = {"GO": ("A", "D", "C"), "HALT": ("B", "E", "D")}  # phones in places where it has heard them; HALT is STOP


@pytest.fixture
def say(toy: Any, tmp_path: Path) -> Any:
    """A sound file of words, those of ALSO among them."""
    def made(*words: str, seed: int = 5) -> Path:
        path = tmp_path / f"{'_'.join(words)}.wav"
        soundfile.write(path, toy.speech.say(words, seed, ALSO).samples, RATE)
        return path

    return made


def written(folder: Path, text: str, name: str = "words.txt") -> Path:
    (folder / name).write_text(text)
    return folder / name


def opened(directory: Path) -> BackoffGraph:
    return BackoffGraph.of(FstArrays.read(directory / "G.fst"), Lang(directory).words, "G")


def heard(directory: Path, *files: Path) -> list[str]:
    transcriber = Transcriber(directory)
    return [transcriber.transcribe(file, word_times=False).text for file in files]


def test_an_added_word_is_heard_and_the_others_still_are(toy: Any, say: Any, tmp_path: Path) -> None:
    files = [say("GO"), say("YES", "GO", "NO"), say("UP", "NO", "STOP")]
    before = heard(toy.directory, *files)
    assert "GO" not in " ".join(before).split() and before[2] == "UP NO STOP"
    facts = change_vocabulary(toy.directory, tmp_path / "new",
                              VocabularyConfig(words=written(tmp_path, "go\tA D C\n")))
    assert heard(tmp_path / "new", *files) == ["GO", "YES GO NO", "UP NO STOP"]
    assert facts["added"] == ["GO"] and facts["unigrams"] == {"GO": 1e-4}
    assert facts["pronunciations"] == {"GO": {"from": "file", "phones": ["A D C"]}}
    np.testing.assert_allclose(opened(tmp_path / "new").masses(), opened(toy.directory).masses(), atol=1e-6)
    times = Transcriber(tmp_path / "new").transcribe(files[1]).words
    assert [word.word for word in times] == ["YES", "GO", "NO"] and min(word.confidence for word in times) > 0.5


def test_the_directory_is_a_recogniser_like_any_other(toy: Any, say: Any, tmp_path: Path) -> None:
    words = written(tmp_path, "GO 0.1 A D C\n")
    facts = change_vocabulary(toy.directory, tmp_path / "new", VocabularyConfig(words=words))
    manifest = read_manifest(tmp_path / "new")
    present = {path.name for path in (tmp_path / "new").iterdir()}
    assert set(manifest["files"]) == present - {"manifest.json"} == {path.name for path in toy.directory.iterdir()} - {
        "manifest.json"}
    assert manifest["figures"] == {} and manifest["vocabulary"]["figures_before"] == {"wer": {"test": 1.25}}
    assert "1 words were added: GO." in (tmp_path / "new/README.md").read_text()
    assert manifest["vocabulary"]["graph_states"] == facts["graph_states"]
    same = ("network.onnx", "weights.safetensors", "hmm.json", "settings.json")
    assert all((tmp_path / "new" / name).read_bytes() == (toy.directory / name).read_bytes() for name in same)
    change_vocabulary(toy.directory, tmp_path / "again", VocabularyConfig(words=words))  # the same bytes
    assert read_manifest(tmp_path / "again")["files"] == manifest["files"]
    source = Source.open(tmp_path / "new")  # and other forms are made from it
    for target in ("sherpa-onnx", "vosk"):
        export(source, target, tmp_path / target, settings_of(exporter_of(target), []))
    assert " GO" in (tmp_path / "sherpa-onnx/tokens.txt").read_text().replace("\u2581", " ")
    assert "\nGO " in (tmp_path / "vosk/graph/words.txt").read_text()
    for target, module in (("sherpa-onnx", "sherpa_onnx"), ("vosk", "vosk")):
        if importlib.util.find_spec(module) is not None:
            done = subprocess.run([sys.executable, str(tmp_path / target / "transcribe.py"), str(say("GO", "NO"))],
                                  capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=True)
            assert done.stdout.split() == ["GO", "NO"]
    more = change_vocabulary(tmp_path / "new", tmp_path / "more", VocabularyConfig(
        words=written(tmp_path, "HALT like STOP B E D\n", "more.txt")))  # on top of it
    assert more["like"] == {"HALT": "STOP"}
    assert heard(tmp_path / "more", say("GO", "NO")) == ["GO NO"]


def test_likeness_probability_and_new_ways_to_say_known_words(toy: Any, say: Any, tmp_path: Path) -> None:
    file = say("NO", "HALT")
    words = written(tmp_path, "HALT like STOP\nHALT B E D\nYES A D C\n")
    change_vocabulary(toy.directory, tmp_path / "like", VocabularyConfig(words=words))
    graph, lang = opened(tmp_path / "like"), Lang(tmp_path / "like")
    row = {lang.words[label]: p for label, p in zip(graph.labels, graph.probabilities, strict=True)}
    assert row["HALT"] == pytest.approx(row["STOP"]) == pytest.approx(row["YES"] / 2)
    assert heard(tmp_path / "like", say("GO"))[0] == "YES"  # said otherwise
    written(tmp_path, "HALT 0.4 B E D\n")
    change_vocabulary(toy.directory, tmp_path / "likely", VocabularyConfig(words=words))
    assert heard(tmp_path / "likely", file) == ["NO HALT"]  # likelier than STOP, which sounds the same
    written(tmp_path, "".join(f"W{number} A D C\n" for number in range(200)))
    facts = change_vocabulary(toy.directory, tmp_path / "many", VocabularyConfig(words=words, total=0.002))
    assert set(facts["unigrams"].values()) == {1e-5}


def test_a_grammar_takes_the_place_of_the_language_model(toy: Any, say: Any, tmp_path: Path) -> None:
    grammar = written(tmp_path, "(yes | no) [go] stop\nup\n", "g.txt")
    files = [say("YES", "GO", "STOP"), say("NO", "STOP"), say("UP"), say("UP", "UP"), say("YES", "NO")]
    facts = change_vocabulary(toy.directory, tmp_path / "new", VocabularyConfig(
        grammar=grammar, words=written(tmp_path, "GO A D C\nNEVER A E\n")))
    found = heard(tmp_path / "new", *files)
    listed = {"YES GO STOP", "NO GO STOP", "YES STOP", "NO STOP", "UP"}
    assert found[:3] == ["YES GO STOP", "NO STOP", "UP"] and set(found[3:]) <= listed
    lang = Lang(tmp_path / "new")
    assert set(lang.lexicon.words) == {"YES", "NO", "GO", "STOP", "UP", "<UNK>"}
    assert lang.phones == Lang(toy.directory).phones  # those of the HMM, whatever the words need
    assert facts["words"] == 5 and facts["graph_states"][1] > 0
    assert "a sentence of the grammar g.txt (5 words)" in (tmp_path / "new/README.md").read_text()
    with pytest.raises(UserError, match=r"G.fst: not the n-gram model of a recogniser \(a grammar"):
        change_vocabulary(tmp_path / "new", tmp_path / "no", VocabularyConfig(words=written(tmp_path, "GO A D C\n")))
    export(Source.open(tmp_path / "new"), "vosk", tmp_path / "vosk", settings_of(exporter_of("vosk"), []))
    change_vocabulary(toy.directory, tmp_path / "json", VocabularyConfig(
        grammar=written(tmp_path, json.dumps(["yes no", "up up"]), "g.json")))
    assert heard(tmp_path / "json", *files[3:]) == ["UP UP", "YES NO"]


def test_pruning_makes_the_graph_smaller_and_goes_with_words(toy: Any, say: Any, tmp_path: Path) -> None:
    old = Lang(toy.directory)
    lang = with_lexicon(old, old.lexicon, tmp_path / "lang")
    text = written(tmp_path, "yes no up\nyes no stop\nup up stop\nno up stop\nyes stop no\nstop\nyes\n", "text.txt")
    train_arpa(text, tmp_path / "lm.arpa", NgramConfig(order=3))
    add_grammar(lang, tmp_path / "lm.arpa")
    compile_hclg(lang, HmmModel.load(toy.directory), tmp_path / "graph")
    toy.export(tmp_path / "old", lang=lang, graph_dir=tmp_path / "graph")
    facts = change_vocabulary(tmp_path / "old", tmp_path / "new", VocabularyConfig(
        prune=0.02, words=written(tmp_path, "GO A D C\n")))
    before, after = facts["ngrams"]
    assert before[0] == after[0] and sum(after) < sum(before) and facts["graph_states"][1] < facts["graph_states"][0]
    files = [say("YES", "NO", "UP"), say("NO", "GO")]
    assert heard(tmp_path / "new", *files) == ["YES NO UP", "NO GO"]
    np.testing.assert_allclose(opened(tmp_path / "new").masses(), 1, atol=1e-5)
    assert "pruned at 0.02" in (tmp_path / "new/README.md").read_text()


def test_commands(toy: Any, say: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = written(tmp_path, "GO A D C\n")
    assert main(["vocabulary", str(toy.directory), "--words", str(words), "--out", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert "GO\tA D C\t(file)" in printed and "1 words were added: GO." in printed and "Search graph:" in printed
    arguments = ["export", str(toy.directory), "--to", "sherpa-onnx", "--words", str(words)]
    assert main([*arguments, "--out", str(tmp_path / "sherpa")]) == 0
    assert "GO" in (tmp_path / "sherpa/words.txt").read_text().split()
    assert main(["vocabulary", str(toy.directory), "--out", str(tmp_path / "no")]) == 1
    assert "nothing to do: give words, a grammar or a pruning threshold" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (["vocabulary", "--prune", "0.1", "--probability", "1e-3"], "--probability is of the words that --words adds"),
    (["vocabulary", "--prune", "0.1", "--spell"], "--spell is for new words"),
    (["export", "--to", "onnx", "--g2p", "there"], "--g2p is for new words"),
    (["export", "--to", "onnx", "--dev-ids", "ids"], "--dev-ids is of the measurement on --dev"),
    (["export", "--to", "onnx", "--margin", "1"], "--margin is of the measurement on --dev"),
    (["export", "--to", "onnx", "--dev", "there", "--utterances", "-3"], "--utterances -3: give 1 or more"),
    (["export", "--to", "onnx", "--utterances", "3"], "--utterances is of the measurement on --dev")])
def test_options_without_their_partner_are_one_line(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                    arguments: list[str], message: str) -> None:
    command, *more = arguments
    assert main([command, str(toy.directory), *more, "--out", str(tmp_path / "no")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "no").exists()


def test_errors_leave_nothing(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = Lexicon({"Z.": [Pronunciation(("Z", "IY"))]})
    monkeypatch.setattr(Lexicon, "from_cmudict", lambda strip_stress: letters)  # the whole takes seconds

    def refused(text: str, message: str, **settings: Any) -> None:
        config = VocabularyConfig(words=written(tmp_path, text), **settings)
        with pytest.raises(UserError, match=message):
            change_vocabulary(toy.directory, tmp_path / "new", config)
        assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]

    refused("GO A X\n", r"words.txt:1: the recogniser has no phone 'X' \(of 'GO'\); it has A B C D E SIL SPN")
    refused("NO A D\nGO A A A\n", r"words.txt:2: 'GO' would need the phone 'A_I', the recogniser has A_B A_E")
    refused("GO like STOPP A D C\n", r"words.txt:1: .* no word 'STOPP' \(did you mean 'STOP'\?\)")
    refused("YES like STOP\n", "words.txt:1: the language model has 'YES' already")
    refused("GO 0.6 A D C\n", "probability of 0.6 together")
    refused("ZX\n", "words.txt:1: the name of 'Z'", spell=True)


def test_places(toy: Any, tmp_path: Path) -> None:
    config = VocabularyConfig(words=written(tmp_path, "GO A D C\n"))
    with pytest.raises(UserError, match="that is the recogniser itself"):
        change_vocabulary(toy.directory, toy.directory, config)
    with pytest.raises(UserError, match="exists and is no recogniser"):
        change_vocabulary(toy.directory, tmp_path, config)
    shutil.copytree(toy.directory, tmp_path / "old")
    manifest = json.loads((tmp_path / "old/manifest.json").read_text())
    del manifest["files"]["G.fst"]
    (tmp_path / "old/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "old/G.fst").unlink()
    with pytest.raises(UserError, match=r"G.fst: no such file: .* exported without its language model"):
        change_vocabulary(tmp_path / "old", tmp_path / "new", config)
    assert Bundle.load(toy.directory)


@pytest.mark.parametrize("settings, message", [
    ({}, "nothing to do"), ({"grammar": Path("g"), "prune": 0.1}, "nothing to prune"),
    ({"words": Path("w"), "probability": 0}, "probability must"), ({"words": Path("w"), "total": 0.7}, "total must"),
    ({"prune": 1.0}, "prune must"),
])
def test_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VocabularyConfig(**settings)
