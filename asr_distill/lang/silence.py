"""How likely silence stands between words: one probability, or one for each pronunciation.

The word-dependent form is that of Chen et al. 2015, "Pronunciation and silence probability modeling for ASR", in the
files of Kaldi's make_lexicon_fst_silprob.pl:

    lexiconp_silprob.txt   word, P(pronunciation), P(silence after it), F(silence | it), F(no silence | it), phones
    silprob.txt            <s> P(silence first); </s>_s and </s>_n: the factors at the end; overall P(silence)

F are factors on a word's probability where silence (or none) stands before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from asr_distill.errors import UserError
from asr_distill.files import write_text
from asr_distill.lang.lexicon import Lexicon
from asr_distill.lang.text import numbered_lines

Said = tuple[str, tuple[str, ...]]  # a word and the phones of one of its pronunciations

WORDS_FILE, ENDS_FILE = "lexiconp_silprob.txt", "silprob.txt"
_ENDS = ("<s>", "</s>_s", "</s>_n", "overall")


class WordSilence(NamedTuple):
    """Silence around one pronunciation."""

    after: float  # probability of silence after it
    factor_silence: float = 1.0  # where silence stands before it
    factor_none: float = 1.0  # where none does


@dataclass(frozen=True)
class SilenceModel:
    """Probabilities of silence in every gap of a sentence; a path takes the product of its gaps' weights."""

    probability: float  # of silence after a word that is not listed
    begin: float  # probability of silence before the first word
    end: WordSilence  # factors of the sentence's end (`after` has no meaning there)
    words: Mapping[Said, WordSilence] = field(default_factory=dict)

    @classmethod
    def constant(cls, probability: float) -> SilenceModel:
        """The same in every gap."""
        return cls(probability, probability, WordSilence(0.0))

    @property
    def by_word(self) -> bool:
        """Whether a word's weight depends on silence before it."""
        return bool(self.words) or (self.end.factor_silence, self.end.factor_none) != (1.0, 1.0)

    def around(self, word: str, phones: tuple[str, ...]) -> WordSilence:
        return self.words.get((word, phones)) or WordSilence(self.probability)

    def write(self, lexicon: Lexicon, directory: Path) -> None:
        """Both files; those of `lexicon` are the pronunciations listed."""
        lines = []
        for word, pronunciations in lexicon:
            for p in pronunciations:
                around = self.around(word, p.phones)
                numbers = " ".join(f"{value:.6g}" for value in (p.probability, *around))
                lines.append(f"{word} {numbers} {' '.join(p.phones)}\n")
        write_text(directory / WORDS_FILE, "".join(lines))
        values = (self.begin, self.end.factor_silence, self.end.factor_none, self.probability)
        write_text(directory / ENDS_FILE, "".join(f"{name} {value:.6g}\n"
                                                  for name, value in zip(_ENDS, values, strict=True)))

    @classmethod
    def read(cls, directory: Path) -> SilenceModel:
        """Raises UserError where a file is missing or a line is not of its form."""
        ends: dict[str, float] = {}
        for number, line in numbered_lines(directory / ENDS_FILE):
            name, *fields = line.split()
            (ends[name],) = _positive(fields, 1, directory / ENDS_FILE, number)
        if ends.keys() != set(_ENDS):
            raise UserError(f"{directory / ENDS_FILE}: must have the lines {', '.join(_ENDS)}")
        begin, silence_end, none_end, overall = (ends[name] for name in _ENDS)
        words: dict[Said, WordSilence] = {}
        for number, line in numbered_lines(directory / WORDS_FILE):
            word, *fields = line.split()
            _, *values = _positive(fields[:4], 4, directory / WORDS_FILE, number)
            if values != [overall, 1.0, 1.0]:
                words[word, tuple(fields[4:])] = WordSilence(*values)
        return cls(overall, begin, WordSilence(0.0, silence_end, none_end), words)


def _positive(fields: list[str], count: int, path: Path, number: int) -> list[float]:
    try:
        values = [float(text) for text in fields]
        if len(values) != count or not all(0 < value < float("inf") for value in values):
            raise ValueError
    except ValueError:
        raise UserError(f"{path}:{number}: expected {count} positive numbers after the word") from None
    return values
