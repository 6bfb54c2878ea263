"""Words that a user adds to a recogniser: the file, and a pronunciation for each in the phones that it has.

    GRAPHENE                     CMUdict says how it is said, else its letters do (g2p), or are named (`spell`)
    ONNX    AA N IH K S          said so; further ways on further lines
    VOSK    1e-3                 likelier than the rest; pronunciations may follow
    KIRSTEN like ANNA            in every context in which the language model has ANNA; pronunciations may follow
    # a comment
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.lang.g2p import G2p, G2pConfig
from asr_distill.lang.lexicon import Lexicon, Pronunciation, check_word, without_position, without_stress
from asr_distill.lang.pieces import Pieces
from asr_distill.lang.text import numbered_lines
from asr_distill.logs import log

LIKE = "like"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_NAMES = {letter: f"{letter}." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}  # CMUdict's entries of letters

Phones = tuple[str, ...]


@dataclass(frozen=True)
class NewWord:
    """One word of the file. `place` is FILE:LINE of its first line."""

    word: str
    place: str
    pronunciations: tuple[Phones, ...] = ()  # plain phones of the model; none: to be found
    probability: float | None = None  # of its unigram; None: the default
    like: str | None = None


def read_new_words(path: Path, phones: Iterable[str]) -> dict[str, NewWord]:
    """The file's words in upper case. `phones`: those of the model, with or without position.

    Raises UserError naming file and line for a line of no such form, a phone that the model lacks, or two lines of a
    word that contradict each other.
    """
    inventory = {without_position(phone) for phone in phones}
    found: dict[str, NewWord] = {}
    for number, line in numbered_lines(path):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            new = _parse(fields, f"{path}:{number}", inventory)
            found[new.word] = _joined(found[new.word], new) if new.word in found else new
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from None
    if not found:
        raise UserError(f"{path}: no words in it")
    return found


def _parse(fields: list[str], place: str, inventory: set[str]) -> NewWord:
    check_word(fields[0])
    word, rest = fields[0].upper(), fields[1:]
    probability, like = None, None
    if rest and _NUMBER.fullmatch(rest[0]):
        probability = float(rest.pop(0))
        if not 0 < probability < 1:
            raise ValueError(f"probability {probability:g} of '{word}' is not within (0, 1)")
    if rest and rest[0] == LIKE:
        if len(rest) < 2:
            raise ValueError(f"'{word} {LIKE}' needs a word that the recogniser knows")
        if probability is not None:
            raise ValueError(f"'{word}': give a probability or '{LIKE} {rest[1]}', not both")
        like, rest = rest[1].upper(), rest[2:]
    spoken = tuple(_phone(phone, word, inventory) for phone in rest)
    return NewWord(word, place, (spoken,) if spoken else (), probability, like)


def _phone(phone: str, word: str, inventory: set[str]) -> str:
    """Stress is taken off where the model has none."""
    for form in (phone, without_stress(phone)):
        if form in inventory:
            return form
    raise ValueError(f"the recogniser has no phone '{phone}' (of '{word}'); it has {' '.join(sorted(inventory))}")


def _joined(first: NewWord, second: NewWord) -> NewWord:
    for name in ("probability", "like"):
        values = {getattr(first, name), getattr(second, name)} - {None}
        if len(values) > 1:
            raise ValueError(f"'{first.word}' has another '{name}' here than in {first.place}")
    pronunciations = dict.fromkeys((*first.pronunciations, *second.pronunciations))
    return NewWord(first.word, first.place, tuple(pronunciations), first.probability or second.probability,
                   first.like or second.like)


@dataclass(frozen=True)
class Pronounced:
    """Words with their pronunciations (plain phones), and where these are from: file, pieces, CMUdict, letters, g2p."""

    entries: dict[str, tuple[Phones, ...]]
    origin: dict[str, str]


def pronounce(words: Iterable[NewWord], lexicon: Lexicon, *, spell: bool = False, cache: Path | None = None,
              pieces: Pieces | None = None) -> Pronounced:
    """Pronunciations of words that a recogniser lacks, or is to have in further forms.

    `lexicon`: the recogniser's own. A word without pronunciation that it has is left out of the result. CMUdict
    answers first; then the names of the letters (`spell`), or a g2p model of `lexicon`, kept in the folder `cache`
    where given (training takes half a minute for 60,000 words). `pieces`: of a recogniser that spells its words in
    sentencepiece units; these answer alone. Raises UserError for a word that cannot be spelled.
    """
    if pieces:
        return _in_pieces(words, lexicon, pieces, spell)
    plain = _plain(lexicon)
    inventory = set(plain.phones())
    entries: dict[str, tuple[Phones, ...]] = {}
    origin: dict[str, str] = {}
    guessed: list[NewWord] = []
    dictionary: Lexicon | None = None
    for new in words:
        if new.pronunciations:
            entries[new.word], origin[new.word] = new.pronunciations, "file"
            continue
        if new.word in lexicon:
            continue
        dictionary = dictionary or Lexicon.from_cmudict(strip_stress=not any(map(_stressed, inventory)))
        if listed := _listed(new.word, dictionary, inventory):
            entries[new.word], origin[new.word] = listed, "CMUdict"
        elif spell:
            entries[new.word], origin[new.word] = (_spelled(new, dictionary, inventory),), "letters"
        else:
            guessed.append(new)
    for word, phones in _guesses(guessed, plain, cache).items():
        entries[word], origin[word] = (phones,), "g2p"
    return Pronounced(entries, origin)


def _in_pieces(words: Iterable[NewWord], lexicon: Lexicon, pieces: Pieces, spell: bool) -> Pronounced:
    if spell:
        raise UserError("this recogniser spells words in pieces of letters: it does not know the names of letters")
    made = Pronounced({}, {})
    for new in words:
        if new.pronunciations:
            made.entries[new.word], made.origin[new.word] = new.pronunciations, "file"
        elif new.word not in lexicon:
            try:
                spelled = tuple(each.phones for each in pieces.spell(new.word))
            except UserError as error:
                raise UserError(f"{new.place}: {error}") from None
            made.entries[new.word], made.origin[new.word] = spelled, "pieces"
    return made


def positioned(entries: Mapping[str, tuple[Phones, ...]], phones: Iterable[str], places: Mapping[str, str], *,
               position_dependent: bool) -> dict[str, list[Pronunciation]]:
    """Lexicon entries in the phones of the model. `places`: where each word stands, for the error.

    Raises UserError where the model has a phone, but never heard it in that position of a word.
    """
    lexicon = Lexicon({word: [Pronunciation(each) for each in spoken] for word, spoken in entries.items()})
    lexicon = lexicon.positioned() if position_dependent else lexicon
    known = set(phones)
    for word in entries:
        for pronunciation in lexicon.pronunciations(word):
            if strange := [phone for phone in pronunciation.phones if phone not in known]:
                bare = without_position(strange[0])
                has = " ".join(sorted(phone for phone in known if without_position(phone) == bare)) or "none of it"
                raise UserError(f"{places.get(word, word)}: '{word}' would need the phone '{strange[0]}', the "
                                f"recogniser has {has}; say it otherwise")
    return {word: list(lexicon.pronunciations(word)) for word in entries}


def _plain(lexicon: Lexicon) -> Lexicon:
    return Lexicon({word: [Pronunciation(tuple(map(without_position, p.phones)), p.probability) for p in spoken]
                    for word, spoken in lexicon})


def _stressed(phone: str) -> bool:
    return without_stress(phone) != phone


def _listed(word: str, dictionary: Lexicon, inventory: set[str]) -> tuple[Phones, ...]:
    spoken = dictionary.pronunciations(word) if word in dictionary else ()
    return tuple(p.phones for p in spoken if inventory.issuperset(p.phones))


def _spelled(new: NewWord, dictionary: Lexicon, inventory: set[str]) -> Phones:
    """The names of its letters, one after another."""
    spoken: list[str] = []
    for letter in re.sub(r"[-.']", "", new.word):
        ways = _listed(_NAMES[letter], dictionary, inventory) if letter in _NAMES else ()
        if not ways:
            raise UserError(f"{new.place}: the name of '{letter}' (of '{new.word}') is not known in the recogniser's "
                            "phones: write its pronunciation behind the word")
        spoken += ways[0]
    if not spoken:
        raise UserError(f"{new.place}: '{new.word}' has no letters to spell")
    return tuple(spoken)


def _guesses(words: list[NewWord], lexicon: Lexicon, cache: Path | None) -> dict[str, Phones]:
    if not words:
        return {}
    log.info("pronunciations of %d words (%s) are guessed from their letters; the model that guesses learns from the "
             "recogniser's %d words", len(words), ", ".join(new.word for new in words[:5]), len(lexicon))
    with tempfile.TemporaryDirectory() as folder:
        try:
            return G2p.cached(lexicon, cache or Path(folder), G2pConfig()).pronounce(new.word for new in words)
        except UserError as error:
            raise UserError(f"{words[0].place.rpartition(':')[0]}: {error}") from None
