"""A prepared language directory: symbols, lexicon, L, and G once a language model is added.

    lexiconp.txt   word, probability, phones           phones.txt, words.txt   symbol tables (name id)
    L.fst          phones -> words, for alignment      L_disambig.fst          the same with #0, #1 ..., for graphs
    lang.json      settings                            G.fst, grammar.json     word n-grams (add_grammar)
    lexiconp_silprob.txt, silprob.txt   where silence depends on the words around it (see silence.py)
    pieces.model, pieces.json           where words are spelled in sentencepiece units (see pieces.py)
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.files import atomic_path, read_json, read_text, write_json, write_text
from asr_distill.kaldi import kaldifst
from asr_distill.lang.grammar import GrammarFigures, grammar_fst
from asr_distill.lang.lexicon import SILENCE_PHONE, SPOKEN_NOISE_PHONE, UNKNOWN_WORD, Lexicon, without_position
from asr_distill.lang.lexicon_fst import disambiguated, entries_of, lexicon_fst
from asr_distill.lang.pieces import FACTS_FILE, PIECE_FILES, Pieces
from asr_distill.lang.pronprobs import PronunciationConfig, PronunciationCounts, silence_model, with_probabilities
from asr_distill.lang.silence import ENDS_FILE, WORDS_FILE, SilenceModel

__all__ = ["SILENCE_PHONE", "SPOKEN_NOISE_PHONE", "UNKNOWN_WORD", "Lang", "LangConfig", "add_grammar",
           "prepare_lang", "with_counts", "with_lexicon"]

EPSILON = "<eps>"


@dataclass(frozen=True)
class LangConfig:
    """Settings of the language directory."""

    silence_probability: float = 0.5  # of silence before the first word and after each word
    position_dependent: bool = False  # phones AH_B, AH_I, AH_E, AH_S: at a word's beginning, inside, end, all of it

    def __post_init__(self) -> None:
        if not 0 <= self.silence_probability < 1:
            raise ValueError(f"silence_probability must be within [0, 1), not {self.silence_probability}")


class Lang:
    """Opens a directory that `prepare_lang` wrote."""

    def __init__(self, directory: Path):
        """Raises UserError where it is incomplete."""
        self.directory = directory
        self.lexicon = Lexicon.read(directory / "lexiconp.txt", probabilities=True, strip_stress=False)
        symbols = _read_symbols(directory / "phones.txt")
        self.phones: tuple[str, ...] = tuple(s for s in symbols[1:] if not s.startswith("#"))  # id = index + 1
        self.disambig: tuple[int, ...] = tuple(i for i, s in enumerate(symbols) if s.startswith("#"))  # phone ids
        self.words: tuple[str, ...] = _read_symbols(directory / "words.txt")  # id = index; words[0] is <eps>
        self.config, word_silence = _read_config(directory / "lang.json")
        self.silence = SilenceModel.read(directory) if word_silence else \
            SilenceModel.constant(self.config.silence_probability)
        self.phone_ids = {phone: index for index, phone in enumerate(self.phones, 1)}
        self.word_ids = {word: index for index, word in enumerate(self.words)}

    @property
    def silence_probability(self) -> float:
        """Of silence in any gap, whatever words are around it."""
        return self.config.silence_probability

    @property
    def alignment_files(self) -> tuple[str, ...]:
        """What of the directory forced alignment needs, and the spelling of new words: with copies of these alone a
        Lang opens."""
        words = (WORDS_FILE, ENDS_FILE) if self.silence.by_word else ()
        pieces = PIECE_FILES if self.pieces else ()
        return ("lexiconp.txt", "phones.txt", "words.txt", "lang.json", *words, *pieces)

    @cached_property
    def pieces(self) -> Pieces | None:
        """What spells words in sentencepiece units; None where words are made of phones."""
        return Pieces(self.directory) if (self.directory / FACTS_FILE).is_file() else None

    def word_or_unknown(self, word: str) -> str:
        """The word itself where the lexicon has it, else `<UNK>`."""
        return word if word in self.lexicon else UNKNOWN_WORD

    def fst(self, name: str) -> kaldifst.StdVectorFst:
        """L, L_disambig or G. Raises UserError where it is missing."""
        path = self.directory / f"{name}.fst"
        if not path.is_file():
            mend = "add a language model first (add_grammar)" if name == "G" else "prepare the directory again"
            raise UserError(f"{path}: no such file; {mend}")
        return kaldifst.StdVectorFst.read(str(path))


def prepare_lang(lexicon: Lexicon, out: Path, config: LangConfig = LangConfig(), *,
                 arpa: Path | None = None) -> Lang:
    """Write a language directory (and G where `arpa` is given) and open it.

    `lexicon` has plain phones; with `position_dependent` the directory's (and `Lang.lexicon`) has positioned ones.
    """
    if config.position_dependent:
        lexicon = lexicon.positioned()
    lang = _write(lexicon, SilenceModel.constant(config.silence_probability), config, out)
    if arpa is not None:
        add_grammar(lang, arpa)
    return lang


def with_counts(lang: Lang, counts: PronunciationCounts, out: Path, config: PronunciationConfig) -> Lang:
    """Write `lang` again into `out` with pronunciation and silence probabilities from counts on an alignment.

    Symbols stay the same, and so does G, which is copied where there is one. Raises UserError where `lang` has no
    silence (silence_probability 0).
    """
    lexicon = with_probabilities(lang.lexicon, counts, config.pronunciation)
    silence = silence_model(counts, lang.silence_probability, config)
    again = _write(lexicon, silence, replace(lang.config, silence_probability=silence.probability), out)
    _copy(lang, ("G.fst", "grammar.json", *PIECE_FILES), out)
    return again


def with_lexicon(lang: Lang, lexicon: Lexicon, out: Path) -> Lang:
    """Write `lang` into `out` with other words, said in its phones, whose ids stay; no G.

    Silence stays as it is; around a pronunciation that `lang` lacks it is that of words seldom seen. Raises
    UserError where `lexicon` has a phone that `lang` lacks.
    """
    if foreign := sorted(set(lexicon.phones()) - set(lang.phones)):
        raise UserError(f"{lang.directory}: has no phone '{foreign[0]}'")
    changed = _write(lexicon, lang.silence, lang.config, out, lang.phones)
    _copy(lang, PIECE_FILES, out)
    return changed


def _copy(lang: Lang, names: Iterable[str], out: Path) -> None:
    """Those of the files that the directory has."""
    for name in names:
        if (lang.directory / name).is_file():
            with atomic_path(out / name) as temporary:
                shutil.copyfile(lang.directory / name, temporary)


def _write(lexicon: Lexicon, silence: SilenceModel, config: LangConfig, out: Path,
           inventory: Sequence[str] = ()) -> Lang:
    """`inventory`: all phones in the order of their ids; without it those of `lexicon`."""
    out.mkdir(parents=True, exist_ok=True)
    lexicon.write(out / "lexiconp.txt", probabilities=True)
    if silence.by_word:
        silence.write(lexicon, out)
    entries = entries_of(lexicon)
    marked, last = disambiguated(entries)
    spoken = lexicon.phones()
    noises = [phone for phone in spoken if without_position(phone) == SPOKEN_NOISE_PHONE]
    special = [SILENCE_PHONE, *noises]
    ordered = inventory or (*special, *(p for p in spoken if p not in special))
    phones = [EPSILON, *ordered, *(f"#{number}" for number in range(last + 2))]
    words = [EPSILON, *sorted(lexicon.words), "#0", "<s>", "</s>"]
    phone_ids = {phone: index for index, phone in enumerate(phones)}
    word_ids = {word: index for index, word in enumerate(words)}
    _write_symbols(out / "phones.txt", phones)
    _write_symbols(out / "words.txt", words)
    write_fst(lexicon_fst(entries, phone_ids, word_ids, silence=silence), out / "L.fst")
    write_fst(lexicon_fst(marked, phone_ids, word_ids, silence=silence, silence_disambig=f"#{last + 1}"),
              out / "L_disambig.fst")
    write_json(out / "lang.json", {**dataclasses.asdict(config), "word_silence": silence.by_word})
    return Lang(out)


def add_grammar(lang: Lang, arpa: Path) -> GrammarFigures:
    """Write G.fst (and grammar.json) into a language directory; n-grams with words outside its lexicon are dropped."""
    fst, figures = grammar_fst(arpa, lang.lexicon, lang.directory / "words.txt")
    write_fst(fst, lang.directory / "G.fst")
    write_json(lang.directory / "grammar.json", dataclasses.asdict(figures))
    return figures


def write_fst(fst: kaldifst.StdVectorFst, path: Path) -> None:
    """Raises UserError where the disk is full."""
    with atomic_path(path) as temporary:
        if not fst.write(str(temporary)):
            raise UserError(f"{path}: cannot be written (is the disk full?)")


def _read_config(path: Path) -> tuple[LangConfig, bool]:
    try:
        facts = dict(read_json(path))
        word_silence = bool(facts.pop("word_silence", False))  # absent in directories of version 0.1
        return LangConfig(**facts), word_silence
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not the settings of a language directory ({error}); prepare it again") from None


def _write_symbols(path: Path, symbols: Iterable[str]) -> None:
    write_text(path, "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols)))


def _read_symbols(path: Path) -> tuple[str, ...]:
    symbols = []
    for number, line in enumerate(read_text(path).splitlines()):
        name, _, index = line.partition(" ")
        if index != str(number):
            raise UserError(f"{path}:{number + 1}: expected 'SYMBOL {number}'")
        symbols.append(name)
    if not symbols or symbols[0] != EPSILON:
        raise UserError(f"{path}: not a symbol table that begins with {EPSILON}")
    return tuple(symbols)
