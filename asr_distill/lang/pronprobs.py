"""Probabilities of pronunciations and of silence around them, from counts on an alignment.

Chen et al. 2015, "Pronunciation and silence probability modeling for ASR"; Kaldi's steps/get_prons.sh and
dict_dir_add_pronprobs.sh.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from asr_distill.errors import UserError
from asr_distill.lang.lexicon import Lexicon, Pronunciation
from asr_distill.lang.silence import Said, SilenceModel, WordSilence

BEGIN_SAID: Said = ("<s>", ())
END_SAID: Said = ("</s>", ())


@dataclass(frozen=True)
class PronunciationCounts:
    """What was said: every gap between two neighbouring words, ends of utterances included."""

    gaps: Counter[tuple[Said, bool, Said]] = field(default_factory=Counter)  # (before, silence between, after)
    utterances: int = 0
    unmatched: int = 0  # utterances whose alignment does not spell their transcript; left out

    def said(self) -> Counter[Said]:
        """How often each pronunciation was said."""
        total: Counter[Said] = Counter()
        for (_, _, said), count in self.gaps.items():
            total[said] += count
        del total[END_SAID]
        return total


@dataclass(frozen=True)
class PronunciationConfig:
    """Smoothing, in observations added to the counts (Kaldi's defaults)."""

    pronunciation: float = 1.0  # to every pronunciation, times the probability that the lexicon gave it
    silence: float = 2.0  # of P(silence after a word), towards the overall probability
    correction: float = 2.0  # of the factors for silence before a word, towards 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")


def with_probabilities(lexicon: Lexicon, counts: PronunciationCounts, smoothing: float = 1.0) -> Lexicon:
    """Relative frequencies after adding `smoothing`; a word's most likely pronunciation has probability 1."""
    said = counts.said()
    entries: dict[str, list[Pronunciation]] = {}
    for word, pronunciations in lexicon:
        mass = [said[word, p.phones] + smoothing * p.probability for p in pronunciations]
        entries[word] = [Pronunciation(p.phones, m / max(mass)) for p, m in zip(pronunciations, mass, strict=True)]
    return Lexicon(entries)


def silence_model(counts: PronunciationCounts, prior: float, config: PronunciationConfig) -> SilenceModel:
    """P(silence | word before) and the factors F(silence or none | word after); unseen words stay neutral.

    `prior` is the overall probability so far. F compares how often silence stands before a word with how often the
    words before it lead one to expect. Raises UserError where the prior is 0: no silence could be seen.
    """
    if prior <= 0:
        raise UserError("silence probabilities cannot be estimated on an alignment made with silence_probability 0")
    followed: Counter[Said] = Counter()
    paused: Counter[Said] = Counter()
    for (before, silence, _), count in counts.gaps.items():
        followed[before] += count
        paused[before] += count * silence
    words = followed.total() - followed[BEGIN_SAID]
    overall = (paused.total() - paused[BEGIN_SAID] + config.silence * prior) / (words + config.silence)
    after = {said: (paused[said] + config.silence * overall) / (count + config.silence)
             for said, count in followed.items()}
    seen: Counter[tuple[Said, bool]] = Counter()
    expected: dict[tuple[Said, bool], float] = {}
    for (before, silence, said), count in counts.gaps.items():
        seen[said, silence] += count
        for kind, share in ((True, after[before]), (False, 1 - after[before])):
            expected[said, kind] = expected.get((said, kind), 0.0) + count * share

    def factor(said: Said, silence: bool) -> float:
        return (seen[said, silence] + config.correction) / (expected.get((said, silence), 0.0) + config.correction)

    around = {said: WordSilence(after[said], factor(said, True), factor(said, False))
              for said in followed if said != BEGIN_SAID}
    end = WordSilence(0.0, factor(END_SAID, True), factor(END_SAID, False))
    return SilenceModel(overall, after.get(BEGIN_SAID, overall), end, around)
