"""What people can listen to: chosen by rule, aligned as kaldialign does, timed as the tones were made."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import kaldialign
import numpy as np
import pytest
import soundfile
from page_experiment import SEED, SPLIT, UTTERANCES, heard

from asr_distill.decode.journal import JOURNAL, read_hypotheses
from asr_distill.errors import UserError
from asr_distill.report.page.audio import flac_of
from asr_distill.report.page.choice import BEST, FIXED, LEAST_WORDS, MEDIAN, SPOILT, WORST, in_turn
from asr_distill.report.page.examples import align, collect_examples
from asr_distill.report.page.experiment import Experiment
from asr_distill.report.page.word_times import evenly

LIMIT = 8_000_000


@pytest.fixture
def copy(experiment: Path, tmp_path: Path) -> Path:
    """The experiment, to be changed; its corpus stays where it is."""
    shutil.copytree(experiment, tmp_path / "exp")
    return tmp_path / "exp"


def test_utterances_are_chosen_by_rule() -> None:
    rng = np.random.default_rng(0)
    words = {f"u{at:02d}": int(rng.integers(1, 12)) for at in range(40)}
    errors, baseline = ({id: int(rng.integers(0, count + 1)) for id, count in words.items()} for _ in range(2))
    order = list(in_turn(errors, baseline, words))
    long = {id for id, count in words.items() if count >= LEAST_WORDS}
    assert {id for id, _ in order} == long and len(order) == len(long)  # each once
    assert [kind for _, kind in order[:6]] == [FIXED, SPOILT, WORST, MEDIAN, BEST, FIXED]
    first = {kind: id for id, kind in reversed(order)}
    gain = {id: baseline[id] - errors[id] for id in long}
    rate = {id: errors[id] / words[id] for id in long}
    assert gain[first[FIXED]] == max(gain.values()) and gain[first[SPOILT]] == min(gain.values())
    free = long - {first[FIXED], first[SPOILT]}
    assert rate[first[WORST]] == max(rate[id] for id in free)
    free -= {first[WORST]}
    below, above = (sum(compare(rate[id], rate[first[MEDIAN]]) for id in long)
                    for compare in (lambda a, b: a < b, lambda a, b: a > b))
    assert max(below, above) <= len(long) / 2 + 3  # in the middle, but for what was given before it
    assert rate[first[BEST]] == min(rate[id] for id in free - {first[MEDIAN]})
    assert all(gain[id] > 0 for id, kind in order if kind == FIXED)
    assert list(in_turn(errors, baseline, words)) == order


def test_choice_without_a_baseline_and_of_short_utterances() -> None:
    words = {"a": 1, "b": 2, "c": 0}
    order = dict(in_turn({"a": 1, "b": 0, "c": 0}, None, words))
    assert order == {"a": WORST, "b": MEDIAN} or set(order) == {"a", "b"}
    assert FIXED not in order.values() and list(in_turn({}, {}, {})) == []


def test_alignment_equals_kaldialign() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        reference = tuple(rng.choice(["YES", "NO", "UP"], int(rng.integers(1, 9))))
        hypothesis = heard(reference, 0.5, rng)
        said, own = evenly(reference, 3.0), evenly(hypothesis, 3.0)
        tokens = align(reference, said, hypothesis, own)
        edits = kaldialign.edit_distance(list(reference), list(hypothesis))
        counts = Counter(token.mark for token in tokens)
        assert (counts["S"], counts["I"], counts["D"]) == (edits["sub"], edits["ins"], edits["del"])
        assert tuple(token.word for token in tokens if token.mark != "D") == hypothesis
        assert tuple(token.reference for token in tokens if token.mark != "I") == reference
        assert [(token.start, token.end) for token in tokens if token.mark != "D"] == own.spans
        said_of = zip((token for token in tokens if token.mark != "I"), said.spans, strict=True)
        assert all((token.start, token.end) == span for token, span in said_of if token.mark == "D")


def test_words_without_times_share_the_recording_by_letters() -> None:
    times = evenly(("A", "BCD"), 3.0)
    assert times.spans == [(0.0, 1.0), (1.0, 3.0)] and not times.aligned
    assert evenly((), 3.0).spans == []


def test_words_are_timed_as_they_were_spoken(experiment: Path, toy) -> None:
    examples = collect_examples(Experiment(experiment), UTTERANCES, LIMIT)
    assert examples.aligned and len(examples.items) >= 8
    spoken = {f"{10 + number % 3}-1-{number:04d}": each
              for number, each in enumerate(toy.speech.utterances(UTTERANCES, seed=SEED))}
    for item in examples.items:
        reference = item.lines[0]
        assert tuple(token.word for token in reference.tokens) == spoken[item.id].words
        for token, end in zip(reference.tokens, spoken[item.id].ends, strict=True):
            assert token.end == pytest.approx(end, abs=0.05) and token.start < token.end
        assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(reference.tokens))


def test_lines_are_what_the_systems_heard(experiment: Path) -> None:
    examples = collect_examples(Experiment(experiment), 6, LIMIT)
    assert (examples.split, examples.subject, examples.reason) == (SPLIT, "student", "")
    assert [item.kind for item in examples.items][:5] == [FIXED, SPOILT, WORST, MEDIAN, BEST]
    for item in examples.items:
        assert [line.system for line in item.lines] == ["reference", "baseline", "ensemble", "student"]
        for line in item.lines[1:]:
            words = {found.id: found.words for found in
                     read_hypotheses(experiment / "05_decode" / line.system / SPLIT / JOURNAL)}[item.id]
            assert tuple(token.word for token in line.tokens if token.word) == words


def test_the_recording_is_the_corpus_own(experiment: Path) -> None:
    for item in collect_examples(Experiment(experiment), 3, LIMIT).items:
        original, _ = soundfile.read(next((experiment.parent / "corpus").rglob(f"{item.id}.flac")))
        embedded, rate = soundfile.read(io.BytesIO(item.flac))
        assert rate == 16000 and np.abs(embedded - original).max() < 2**-14
        assert item.seconds == pytest.approx(len(original) / rate, abs=0.01)


def test_other_rates_and_channels(tmp_path: Path) -> None:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, wave], 1), 48000)
    samples, rate = soundfile.read(io.BytesIO(flac_of(tmp_path / "a.wav", 0.25, 0.5)))
    assert rate == 16000 and samples.shape == (8000,)
    expected = 0.5 * np.sin(2 * np.pi * 440 * (np.arange(8000) / 16000 + 0.25))
    assert np.abs(samples - expected)[200:-200].max() < 0.01
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    for name in ("b.wav", "nowhere.wav"):
        with pytest.raises(UserError, match=name):
            flac_of(tmp_path / name)


def test_the_limit_holds(experiment: Path) -> None:
    every = collect_examples(Experiment(experiment), 8, LIMIT)
    limit = every.bytes // 2
    some = collect_examples(Experiment(experiment), 8, limit)
    assert 0 < some.bytes <= limit and len(some.items) + some.left_out == 8
    none = collect_examples(Experiment(experiment), 8, 10)
    assert not none.items and none.left_out == 8 and "8 recordings" in none.reason
    assert not collect_examples(Experiment(experiment), 0, LIMIT).items


def test_a_moved_corpus_is_found_where_it_is_said_to_be(experiment: Path, copy: Path, tmp_path: Path) -> None:
    record = copy / "01_corpus" / "resources.json"
    record.write_text(json.dumps({"root": str(tmp_path / "gone")}))
    gone = collect_examples(Experiment(copy), 2, LIMIT)
    assert not gone.items and "gone: the corpus is no longer here (say where it is with --corpus" in gone.reason
    assert collect_examples(Experiment(copy), 2, LIMIT, experiment.parent / "corpus").items
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "LibriSpeech").symlink_to(experiment.parent / "corpus")
    assert collect_examples(Experiment(copy), 2, LIMIT, tmp_path / "moved").items
    (tmp_path / "gone").mkdir()
    assert "not the corpus root" in collect_examples(Experiment(copy), 2, LIMIT).reason


def test_a_recording_that_is_damaged_is_left_out(experiment: Path, copy: Path, tmp_path: Path) -> None:
    shutil.copytree(experiment.parent / "corpus", tmp_path / "corpus")
    (first,) = collect_examples(Experiment(copy), 1, LIMIT, tmp_path / "corpus").items
    next((tmp_path / "corpus").rglob(f"{first.id}.flac")).write_bytes(b"fLaC")
    rest = collect_examples(Experiment(copy), 3, LIMIT, tmp_path / "corpus")
    assert rest.left_out == 1 and len(rest.items) == 2 and first.id not in {item.id for item in rest.items}


def test_times_are_guessed_without_an_export_and_said_to_be(copy: Path) -> None:
    (copy / "06_export" / "recogniser" / "network.onnx").write_bytes(b"")
    damaged = collect_examples(Experiment(copy), 2, LIMIT)
    shutil.rmtree(copy / "06_export")
    none = collect_examples(Experiment(copy), 2, LIMIT)
    assert damaged.items and damaged == none and not none.aligned
    assert none.items[0].lines[0].tokens[-1].end == pytest.approx(none.items[0].seconds)


@pytest.mark.parametrize(("missing", "reason"), [
    ("01_corpus", "stages 'corpus' and 'features'"), ("05_decode", "no system's words"),
    (f"05_decode/baseline/{SPLIT}", "no scored split"), (f"02_features/{SPLIT}/frames.npy", "frames.npy")])
def test_why_there_is_nothing_to_hear(copy: Path, missing: str, reason: str) -> None:
    path = copy / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    examples = collect_examples(Experiment(copy), 8, LIMIT)
    assert not examples.items and reason in examples.reason


def test_words_of_another_decoding_are_refused(copy: Path) -> None:
    journal = copy / "05_decode" / "student" / SPLIT / JOURNAL
    lines = journal.read_text().splitlines()
    entry = json.loads(lines[0])
    journal.write_text("\n".join([json.dumps(entry | {"words": ["STOP"] * 9}), *lines[1:]]) + "\n")
    assert "not the words that RESULTS.json was made from" in collect_examples(Experiment(copy), 8, LIMIT).reason
    journal.write_text("\n".join(lines[1:]) + "\n")
    assert f"no words of utterance '{entry['id']}'" in collect_examples(Experiment(copy), 8, LIMIT).reason
