"""Units made of letters: sentencepiece pieces (Kudo and Richardson 2018) in the place of phones.

Every word is spelled in pieces, so no lexicon is needed. A piece that begins a word is written with a mark (▁THE), as
sentencepiece does; but sentencepiece's own mark is a character, and could become a piece without a sound. So here the
first letter of a word is a letter of its own for sentencepiece (`_MARK` beyond the letter, in Unicode's private area).

    pieces.model   sentencepiece's model                pieces.json   settings, letters, digest of the model
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import sentencepiece

from asr_distill.errors import UserError
from asr_distill.files import atomic_path, read_json, write_json
from asr_distill.lang.lexicon import UNKNOWN_WORD, Lexicon, Pronunciation, check_word

WORD_BEGIN = "▁"
LEAST_PROBABILITY = 1e-6  # of a segmentation beside the likeliest
MODEL_FILE, FACTS_FILE = PIECE_FILES = "pieces.model", "pieces.json"
# Names that the rest of the program would read as something else: symbols of FSTs, silence, numbers, stress, places.
_MISREAD = re.compile(r"[#<|].*|SIL|SPN|[-+]?\d*\.?\d+(?:e[-+]?\d+)?|.*[012]|.*_[BIES]", re.IGNORECASE)
_MARK = 0xF0000  # code points of Unicode's private plane 15 are those of plane 0 and this


@dataclass(frozen=True)
class PieceConfig:
    """Settings of the units. They are learned from the training transcripts, and from the text where it has a share."""

    model: Literal["unigram", "bpe"] = "unigram"
    vocab_size: int = 150  # pieces, every letter (at a word's beginning and inside) among them
    max_letters: int = 8  # of a piece
    segmentations: int = 1  # of a word, the likeliest: each is a pronunciation (unigram alone has more than one)
    text_share: float = 0.0  # of what pieces are learned from: the language model's text (lang.text)
    min_begins: int = 20  # a letter that begins fewer words of the transcripts has one form, as inside words

    def __post_init__(self) -> None:
        if self.vocab_size < 2 or self.max_letters < 1 or self.segmentations < 1 or self.min_begins < 1:
            raise ValueError("vocab_size must be at least 2, max_letters, segmentations and min_begins at least 1")
        if not 0 <= self.text_share < 1:
            raise ValueError(f"text_share must be within [0, 1), not {self.text_share}")
        if self.model == "bpe" and self.segmentations > 1:
            raise ValueError("segmentations above 1 need model unigram: byte-pair merges give one")


class Pieces:
    """A trained model: `spell` writes words in pieces."""

    def __init__(self, directory: Path):
        """Opens what `train` wrote. Raises UserError where a file is missing or damaged."""
        path = directory / MODEL_FILE
        facts = read_json(directory / FACTS_FILE)
        try:
            proto = path.read_bytes()
            if hashlib.sha256(proto).hexdigest() != facts["sha256"]:
                raise ValueError("its digest is another")
            self.config = PieceConfig(**facts["settings"])
            self.letters = frozenset(facts["letters"])  # as sentencepiece sees them, marked ones among them
            self._known = frozenset(letter for letter in self.letters if ord(letter) < _MARK)
            self._model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; prepare the language directory again") from None
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: not the pieces of {FACTS_FILE} ({error}); prepare the language directory "
                            "again") from None
        self.digest = facts["sha256"]

    @classmethod
    def train(cls, spoken: Mapping[str, int], text: Mapping[str, int], config: PieceConfig, out: Path) -> Pieces:
        """Learn pieces from counts of words: those of the transcripts and (for `text_share`) those of a text.

        The same counts give the same model, byte for byte. Raises UserError where the pieces are fewer than the
        letters, more than the words give, or a letter cannot be a piece.
        """
        counts = _weighted(spoken, text, config.text_share)
        letters = _letters(spoken, config.min_begins)
        lines = sorted((_coded(word, letters), count) for word, count in counts.items())
        proto = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([f"{word}\t{count}" for word, count in lines]), input_format="tsv",
                model_writer=proto, model_type=config.model, vocab_size=config.vocab_size + 1,  # and <unk>
                max_sentencepiece_length=config.max_letters, character_coverage=1.0, hard_vocab_limit=False,
                normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
                split_by_unicode_script=False, split_by_number=False, bos_id=-1, eos_id=-1, unk_id=0, num_threads=1,
                minloglevel=3)
        except RuntimeError as error:
            reason = " ".join((str(error).rpartition("] ")[2] or str(error)).split())
            raise UserError(f"lang.pieces: {config.vocab_size} pieces cannot be learned from {len(spoken)} words with "
                            f"{len(letters)} letters ({reason}); change lang.pieces.vocab_size") from None
        model = sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())
        known = {model.id_to_piece(index) for index in range(1, model.vocab_size())}
        if missing := sorted(_written(letter) for letter in letters - known):
            raise UserError(f"lang.pieces: the transcripts have {', '.join(map(repr, missing[:5]))}, which cannot be "
                            "pieces: take such words out")
        out.mkdir(parents=True, exist_ok=True)
        with atomic_path(out / MODEL_FILE) as temporary:
            temporary.write_bytes(proto.getvalue())
        write_json(out / FACTS_FILE, {"settings": asdict(config), "letters": sorted(letters),
                                      "sha256": hashlib.sha256(proto.getvalue()).hexdigest(),
                                      "pieces": sorted(map(_written, known))})
        return cls(out)

    def spells(self, word: str) -> bool:
        """Whether the training transcripts had all its letters."""
        return not self._strange(word)

    def spell(self, word: str) -> list[Pronunciation]:
        """The word's segmentations, likeliest first; probabilities relative to the likeliest.

        Raises UserError where the training transcripts have not a letter of it.
        """
        if strange := self._strange(word):
            raise UserError(f"cannot spell '{word}': no training transcript has {', '.join(map(repr, strange))}; write "
                            "the word in letters that they have, or leave it out")
        coded = _coded(word, self.letters)
        if self.config.segmentations == 1:
            return [Pronunciation(_names(self._model.encode(coded, out_type=str)))]
        found = self._model.nbest_encode(coded, nbest_size=self.config.segmentations, out_type=str)
        scores = [sum(self._model.get_score(self._model.piece_to_id(piece)) for piece in each) for each in found]
        return [Pronunciation(_names(each), max(math.exp(score - scores[0]), LEAST_PROBABILITY))
                for each, score in zip(found, scores, strict=True)]

    def lexicon(self, words: Iterable[str]) -> Lexicon:
        """Of these words (and `<UNK>`, which stays spoken noise). Raises UserError as `spell`."""
        return Lexicon({word: self.spell(word) for word in words if word != UNKNOWN_WORD})

    def _strange(self, word: str) -> list[str]:
        return sorted(set(word) - self._known)


def is_word(word: str) -> bool:
    """Whether it can be a word of a lexicon (no symbol of FSTs or language models)."""
    try:
        check_word(word)
    except ValueError:
        return False
    return word != UNKNOWN_WORD


def letters_of(phones: Iterable[str]) -> dict[str, str] | None:
    """Letters of every phone that is a piece, without the mark ("" of silence and noise); None where none is marked."""
    pieces = {phone: phone[1:-1] if phone.startswith("|") else phone for phone in phones}
    if not any(piece.startswith(WORD_BEGIN) for piece in pieces.values()):
        return None
    return {phone: "" if phone in ("SIL", "SPN") else piece.removeprefix(WORD_BEGIN) for phone, piece in pieces.items()}


def _weighted(spoken: Mapping[str, int], text: Mapping[str, int], share: float) -> dict[str, int]:
    """Whole counts in which the text has its share; of the text the words whose letters are all spoken."""
    if not share or not text:
        return dict(spoken)
    letters = {letter for word in spoken for letter in word}
    text = {word: count for word, count in text.items() if letters.issuperset(word)}
    factor = share / (1 - share) * sum(spoken.values()) / max(1, sum(text.values()))
    scale = 100 if factor < 1 else 1  # of both, for rare words of a long text round to nothing
    counts = Counter({word: count * scale for word, count in spoken.items()})
    counts.update({word: weight for word, count in text.items() if (weight := round(count * factor * scale))})
    return dict(counts)


def _marked(letter: str) -> str:
    """The form of a letter at a word's beginning; letters beyond Unicode's first plane have one form."""
    return chr(_MARK + ord(letter)) if ord(letter) < 0xFFFE else letter


def _letters(spoken: Mapping[str, int], min_begins: int) -> frozenset[str]:
    """What sentencepiece sees: all letters of these words, and the marked form of those that begin enough of them."""
    inside = {letter for word in spoken for letter in word[1:]}
    begins: Counter[str] = Counter()
    for word, count in spoken.items():
        begins[word[0]] += count
    marked = {_marked(letter) for letter, count in begins.items() if count >= min_begins and letter in inside}
    return frozenset(inside | set(begins) | marked)


def _coded(word: str, letters: frozenset[str]) -> str:
    """The word in the letters that sentencepiece sees."""
    first = _marked(word[0])
    return (first if first in letters else word[0]) + word[1:]


def _written(piece: str) -> str:
    """A piece as people read it: with the mark where it begins a word."""
    return "".join(WORD_BEGIN + chr(ord(letter) - _MARK) if ord(letter) >= _MARK else letter for letter in piece)


def _names(pieces: Iterable[str]) -> tuple[str, ...]:
    """Phone names: the piece as written, or |piece| where that would be misread."""
    written = map(_written, pieces)
    return tuple(f"|{piece}|" if _MISREAD.fullmatch(piece) else piece for piece in written)
