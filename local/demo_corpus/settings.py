"""How much speech the demo corpus holds and by how many voices."""

from __future__ import annotations

from dataclasses import dataclass

MOST_TEST_VOICES = 20  # English Kokoro voices that may leave the training set


@dataclass(frozen=True)
class DemoCorpusSettings:
    """Minutes are aims (speech is planned before it is spoken); what came out is in the figures.

    Cost of one minute of speech in seconds of one core: 28 by Kokoro (dev, test and the rest of train), 3 by the fast
    voice, 0.2 for a pitched copy (or test-other).
    """

    minutes_train: float = 36.0  # all of train-clean: Kokoro + its pitched copies + the fast voice
    minutes_fast: float = 9.0  # of these, the fast voice (hibari) warped into further speakers
    copies: int = 2  # pitched copies of every Kokoro training utterance, each a speaker of its own
    minutes_dev: float = 2.0
    minutes_test: float = 4.0  # of test-clean; test-other holds the same utterances with room and noise
    voices_dev: int = 4
    voices_test: int = 8
    voices_blended: int = 8  # two Kokoro training voices mixed: further training speakers
    voices_fast: int = 10
    min_words: int = 5
    max_words: int = 20
    seed: int = 7
    workers: int = 0  # processes; 0: one a core

    def __post_init__(self) -> None:
        for name in ("minutes_train", "minutes_dev", "minutes_test"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.minutes_fast < self.minutes_train:
            raise ValueError(f"minutes_fast must be at least 0 and below minutes_train, not {self.minutes_fast}")
        if not 0 <= self.copies <= 4:
            raise ValueError(f"copies must be 0 to 4, not {self.copies}")
        if self.voices_dev < 1 or self.voices_test < 1 or self.voices_dev + self.voices_test > MOST_TEST_VOICES:
            raise ValueError(f"voices_dev and voices_test must be at least 1 and at most {MOST_TEST_VOICES} together")
        if not 0 <= self.voices_blended <= 200 or not 1 <= self.voices_fast <= 200:
            raise ValueError("voices_blended must be 0 to 200, voices_fast 1 to 200")
        if not 1 <= self.min_words <= self.max_words <= 30:
            raise ValueError("min_words and max_words must be 1 <= min_words <= max_words <= 30")
        if self.workers < 0:
            raise ValueError("workers must be at least 0")

    @property
    def minutes_kokoro_train(self) -> float:
        """Minutes that Kokoro itself speaks for train-clean."""
        return (self.minutes_train - self.minutes_fast) / (1 + self.copies)
