"""Who speaks what: no voice and no sentence in two splits."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from local.demo_corpus.plan import plan_utterances, seconds_estimate, transcripts
from local.demo_corpus.settings import DemoCorpusSettings
from local.demo_corpus.text import Prompt
from local.demo_corpus.voices import DEV, SUBSETS, TEST, TEST_OTHER, TRAIN, UNCLEAR, Speaker, cast_speakers

NAMES = ["heart", "bella", "kore", "nova", "sky", "river", "sarah", "alex", "santa", "dora", "nicole"]
VOICES = [f"{language}{sex}_{name}" for language in "abepz" for sex in "fm" for name in NAMES]
SETTINGS = DemoCorpusSettings()
PROMPTS = [Prompt(f"Sentence {'x' * (i % 60)} number {i}.", f"SENTENCE NUMBER {i}") for i in range(3000)]


def voices_of(speakers: list[Speaker], subset: str) -> set[str]:
    return {name for speaker in speakers if speaker.subset == subset
            for name in ([voice for voice, _ in speaker.mix] or ["hibari"])}


@pytest.mark.parametrize("seed", range(5))
def test_no_voice_in_two_splits(seed: int) -> None:
    speakers = cast_speakers(VOICES, dataclasses.replace(SETTINGS, seed=seed))
    train, dev, test = (voices_of(speakers, subset) for subset in (TRAIN, DEV, TEST))
    assert not train & dev and not train & test and not dev & test
    assert len(dev) == 4 and len(test) == 8
    assert all(voice[0] in "ab" for voice in dev | test)
    assert Counter(voice[1] for voice in test) == {"f": 4, "m": 4}
    assert {"hibari", "af_heart"} <= train, "the fast voice was distilled from af_heart"
    for person in ("santa", "dora", "alex"):
        assert not any(voice.endswith(person) for voice in dev | test)
    assert not (train | dev | test) & UNCLEAR


def test_speakers_have_their_own_ids_and_copies_are_of_training_speakers() -> None:
    speakers = cast_speakers(VOICES, SETTINGS)
    by_id = {speaker.id: speaker for speaker in speakers}
    assert len(by_id) == len(speakers)
    copies = [speaker for speaker in speakers if speaker.copy_of is not None]
    assert len(copies) == 2 * sum(s.subset == TRAIN and bool(s.mix) and s.copy_of is None for s in speakers)
    assert all(by_id[copy.copy_of].subset == TRAIN and copy.rate != 1 and "copy of" in copy.name for copy in copies)
    assert all(sum(weight for _, weight in speaker.mix) == pytest.approx(1) for speaker in speakers if speaker.mix)
    assert cast_speakers(list(reversed(VOICES)), SETTINGS) == speakers, "the order of files must not matter"


def test_without_kokoro_every_split_has_warped_speakers() -> None:
    speakers = cast_speakers([], SETTINGS)
    assert Counter(speaker.subset for speaker in speakers) == {TEST: 8, DEV: 4, TRAIN: 10}
    assert len({(speaker.pitch, speaker.formants) for speaker in speakers}) == len(speakers)


def test_too_few_voices() -> None:
    with pytest.raises(ValueError, match="too few English voices"):
        cast_speakers(["af_bella", "am_adam"], SETTINGS)


def test_plan_uses_each_sentence_once_and_meets_the_minutes() -> None:
    utterances = plan_utterances(PROMPTS, cast_speakers(VOICES, SETTINGS), SETTINGS)
    assert len({utterance.prompt.words for utterance in utterances}) == len(utterances)
    paths = [recording.path for utterance in utterances for recording in utterance.recordings]
    assert len({Path(path).stem for path in paths}) == len(paths), "utterance ids are unique in the whole corpus"
    minutes = dict.fromkeys(SUBSETS, 0.0)
    for utterance in utterances:
        for recording in utterance.recordings:
            minutes[recording.path.split("/")[0]] += seconds_estimate(utterance.prompt) / 60 / recording.rate
    assert minutes[TEST] == pytest.approx(4, abs=0.1) and minutes[TEST_OTHER] == minutes[TEST]
    assert minutes[DEV] == pytest.approx(2, abs=0.1)
    assert minutes[TRAIN] == pytest.approx(36, rel=0.03)


def test_test_and_dev_do_not_change_with_the_size_of_train() -> None:
    small = dataclasses.replace(SETTINGS, minutes_train=12.0)
    plans = [[(u.id, u.prompt, u.seed) for u in plan_utterances(PROMPTS, cast_speakers(VOICES, s), s)
              if u.speaker.subset != TRAIN] for s in (SETTINGS, small)]
    assert plans[0] == plans[1]


def test_transcripts_are_librispeechs() -> None:
    utterances = plan_utterances(PROMPTS, cast_speakers(VOICES, SETTINGS), SETTINGS)
    files = transcripts(utterances)
    lines = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for text in files.values() for line in text.splitlines()}
    for utterance in utterances:
        for recording in utterance.recordings:
            assert lines[Path(recording.path).stem] == utterance.prompt.words
    path = next(iter(files))
    subset, speaker, chapter, name = path.split("/")
    assert name == f"{speaker}-{chapter}.trans.txt" and subset in SUBSETS


def test_not_enough_sentences() -> None:
    with pytest.raises(ValueError, match="more minutes asked for"):
        plan_utterances(PROMPTS[:50], cast_speakers(VOICES, SETTINGS), SETTINGS)


@pytest.mark.parametrize("wrong", [{"minutes_dev": 0}, {"minutes_fast": 36.0}, {"copies": 5}, {"voices_test": 17},
                                   {"voices_fast": 0}, {"min_words": 21}, {"workers": -1}])
def test_settings_ranges(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(SETTINGS, **wrong)
