"""Who speaks in which subset: Kokoro's voices and their blends, the fast voice warped, pitched copies.

No voice stands in two splits: a blend mixes training voices only, copies and the fast voice are training speakers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from local.demo_corpus.settings import DemoCorpusSettings

TRAIN, DEV, TEST, TEST_OTHER = "train-clean", "dev-clean", "test-clean", "test-other"
SUBSETS = (TRAIN, DEV, TEST, TEST_OTHER)

UNCLEAR = {"jf_alpha", "zf_xiaoyi", "jf_tebukuro", "zf_xiaoxiao", "zm_yunxia"}  # English hard to understand
WHISPERED = {"af_nicole"}
FAST_VOICE_OF = "af_heart"  # hibari's voice was distilled from it: both must stay on one side
SAME_PERSON = ("_santa", "_dora", "_alex")  # one voice under several languages' names: all in train
ENGLISH = ("af", "am", "bf", "bm")
FIRST_ID = 1001


@dataclass(frozen=True)
class Speaker:
    """`mix`: Kokoro voices and weights; none: the fast voice, its pitch and formants moved by the given ratios.

    A copy has `copy_of`, the id of the speaker whose recordings it plays `rate` times as fast (pitch and formants too).
    """

    id: int
    sex: str
    subset: str
    name: str
    mix: tuple[tuple[str, float], ...] = ()
    pitch: float = 1.0
    formants: float = 1.0
    rate: float = 1.0
    copy_of: int | None = None


def cast_speakers(voices: Sequence[str], settings: DemoCorpusSettings) -> list[Speaker]:
    """`voices`: names of Kokoro voices (`af_heart`: language, sex, name); none: every subset by the warped fast voice.

    Raises ValueError where there are too few English voices for dev and test.
    """
    rng = random.Random(settings.seed)
    cast = _kokoro(sorted(set(voices) - UNCLEAR), settings, rng) if voices else _fast_only(settings, rng)
    cast += [_warped(TRAIN, index, rng) for index in range(settings.voices_fast)]
    speakers = [replace(speaker, id=FIRST_ID + index) for index, speaker in enumerate(cast)]
    return speakers + _copies(speakers, settings, rng)


def _kokoro(voices: list[str], settings: DemoCorpusSettings, rng: random.Random) -> list[Speaker]:
    fit = [voice for voice in voices if voice[:2] in ENGLISH and voice not in WHISPERED and voice != FAST_VOICE_OF
           and not voice.endswith(SAME_PERSON)]
    by_sex = {sex: [voice for voice in fit if voice[1] == sex] for sex in "fm"}
    for names in by_sex.values():
        rng.shuffle(names)
    test = _take(by_sex, settings.voices_test)
    dev = _take(by_sex, settings.voices_dev)
    train = [voice for voice in voices if voice not in test + dev]
    cast = [_pure(TEST, voice) for voice in test] + [_pure(DEV, voice) for voice in dev]
    cast += [_pure(TRAIN, voice) for voice in train]
    for index in range(settings.voices_blended):
        sex = "fm"[index % 2]
        pair = rng.sample([voice for voice in train if voice[1] == sex and voice not in WHISPERED], 2)
        share = round(rng.uniform(0.35, 0.65), 2)
        mix = ((pair[0], share), (pair[1], round(1 - share, 2)))
        cast.append(Speaker(0, sex.upper(), TRAIN, "Kokoro " + " + ".join(f"{w} {v}" for v, w in mix), mix))
    return cast


def _take(by_sex: dict[str, list[str]], count: int) -> list[str]:
    """`count` voices, as many women as men (one woman more where odd), removed from `by_sex`."""
    wanted = {"f": (count + 1) // 2, "m": count // 2}
    if any(len(by_sex[sex]) < number for sex, number in wanted.items()):
        raise ValueError(f"too few English voices left for {count} speakers of dev or test")
    return [by_sex[sex].pop() for sex in "fm" for _ in range(wanted[sex])]


def _pure(subset: str, voice: str) -> Speaker:
    return Speaker(0, voice[1].upper(), subset, f"Kokoro {voice}", ((voice, 1.0),))


def _fast_only(settings: DemoCorpusSettings, rng: random.Random) -> list[Speaker]:
    cast = [_warped(TEST, index, rng) for index in range(settings.voices_test)]
    return cast + [_warped(DEV, index, rng) for index in range(settings.voices_dev)]


def _warped(subset: str, index: int, rng: random.Random) -> Speaker:
    """Every second one a man's: pitch an octave to a fifth lower, vocal tract longer."""
    if index % 2:
        sex, pitch, formants = "M", rng.uniform(0.5, 0.68), rng.uniform(0.82, 0.9)
    else:
        sex, pitch, formants = "F", rng.uniform(0.85, 1.25), rng.uniform(0.95, 1.12)
    pitch, formants = round(pitch, 3), round(formants, 3)
    return Speaker(0, sex, subset, f"hibari heart, pitch x{pitch}, formants x{formants}", (), pitch, formants)


def _copies(speakers: list[Speaker], settings: DemoCorpusSettings, rng: random.Random) -> list[Speaker]:
    """Slower (deeper) and faster (higher) copies in turn, of the Kokoro training speakers."""
    copies: list[Speaker] = []
    for speaker in speakers:
        for index in range(settings.copies if speaker.subset == TRAIN and speaker.mix else 0):
            rate = round(rng.uniform(0.86, 0.94) if index % 2 == 0 else rng.uniform(1.06, 1.14), 2)
            copies.append(replace(speaker, id=FIRST_ID + len(speakers) + len(copies), copy_of=speaker.id, rate=rate,
                                  name=f"copy of {speaker.id} ({speaker.name}) played x{rate}"))
    return copies
