"""From what a user brings (lexicon or none, ARPA or text) to a language directory with L and G."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asr_distill.config import LATER
from asr_distill.errors import UserError
from asr_distill.lang.g2p import G2pConfig, covering
from asr_distill.lang.lang import LangConfig, add_grammar, prepare_lang
from asr_distill.lang.lexicon import Lexicon
from asr_distill.lang.ngram import NgramConfig, train_arpa
from asr_distill.lang.ngram_model import BEGIN, END
from asr_distill.lang.ngram_scorer import NgramScorer
from asr_distill.lang.pieces import PieceConfig, Pieces, is_word
from asr_distill.lang.text import numbered_lines
from asr_distill.logs import log

SMALL = "small"  # folder of the n-gram model, as arrays
Transcripts = Mapping[str, Sequence[Sequence[str]]]  # split -> words of each utterance


@dataclass(frozen=True)
class LangSettings:
    """Words, pronunciations and the n-gram model."""

    lexicon: Path | None = None  # LibriSpeech's format; without it CMUdict
    arpa: Path | None = None  # an n-gram model; without it one is trained on `text`
    text: Path | None = None  # one sentence a line
    strip_stress: bool = True
    guess_lm_words: bool = True  # by g2p, where CMUdict lacks them; false: they are dropped from the model
    ngram: NgramConfig = NgramConfig()
    g2p: G2pConfig = G2pConfig()
    silence: LangConfig = LangConfig()
    units: Literal["phones", "sentencepiece"] = field(default="phones", metadata=LATER)  # what words are made of
    pieces: PieceConfig = field(default=PieceConfig(), metadata=LATER)  # sentencepiece units; no lexicon is read then

    def __post_init__(self) -> None:
        if self.units == "sentencepiece" and self.silence.position_dependent:
            raise ValueError("sentencepiece units say themselves where a word begins: set "
                             "lang.silence.position_dependent=false")


def build_lang(settings: LangSettings, transcripts: Transcripts, train: str, out: Path) -> dict[str, Any]:
    """Write the language directory `out`: the words of the LM and of the training split's transcripts.

    A word of the LM without a pronunciation is dropped where a lexicon was given (or `guess_lm_words` is off), and
    guessed by g2p where CMUdict serves; a word of the training transcripts is always given one. With sentencepiece
    units no lexicon is read: words are spelled in pieces, and those of the LM with a letter that no training transcript
    has are dropped. The n-gram model stays in out/small (NgramScorer(out / SMALL)), for rescoring. Returns figures:
    words, guessed (or pieces), n-grams, and for every split the unknown-word rate (percent) and the perplexity.

    Raises UserError where there is neither ARPA nor text, or a training word cannot be pronounced.
    """
    phones = settings.units == "phones"
    known = _known(settings) if phones else None  # before the LM: a broken lexicon is said at once
    arpa, figures = _language_model(settings, out)
    scorer = NgramScorer(arpa)
    scorer.model.save(out / SMALL)
    spoken = Counter(word for words in transcripts[train] for word in words)
    modelled = [word for word in scorer.model.words if word not in (BEGIN, END)]
    lexicon, found = (_pronounced(settings, known, spoken, modelled, out) if known is not None else
                      _spelled(settings, spoken, modelled, out))
    lang = prepare_lang(lexicon, out, settings.silence)
    grammar = add_grammar(lang, arpa)
    return figures | {"words": len(lexicon), **found, "grammar": vars(grammar), "splits": fits(scorer, transcripts)}


def _known(settings: LangSettings) -> Lexicon:
    return Lexicon.read(settings.lexicon, strip_stress=settings.strip_stress) if settings.lexicon else \
        Lexicon.from_cmudict(strip_stress=settings.strip_stress)


def _pronounced(settings: LangSettings, lexicon: Lexicon, spoken: Collection[str], modelled: Iterable[str],
                out: Path) -> tuple[Lexicon, dict[str, Any]]:
    """Words in phones, and how many were guessed."""
    guess = settings.guess_lm_words and not settings.lexicon
    chosen = [word for word in modelled if word in lexicon or (guess and _speakable(word))]
    lexicon, guessed = covering(lexicon, sorted({*spoken, *chosen}), out / "g2p", settings.g2p)
    if guessed:
        log.info("pronunciations of %d words guessed by g2p, for example %s", len(guessed), ", ".join(guessed[:5]))
    return lexicon, {"guessed": len(guessed)}


def _spelled(settings: LangSettings, spoken: Mapping[str, int], modelled: Iterable[str],
             out: Path) -> tuple[Lexicon, dict[str, Any]]:
    """Words in pieces; how many pieces (spoken noise apart), and further figures."""
    text: Counter[str] = Counter()
    if settings.pieces.text_share:
        if settings.text is None:
            raise UserError("lang.pieces.text_share needs a text: give --set lang.text=FILE, or set it to 0")
        text.update(word for _, line in numbered_lines(settings.text) for word in line.split() if is_word(word))
    spoken = {word: count for word, count in spoken.items() if is_word(word)}
    pieces = Pieces.train(spoken, text, settings.pieces, out)
    written = [word for word in modelled if is_word(word)]
    strange = [word for word in written if not pieces.spells(word)]
    if strange:
        log.warning("%d words of the language model have letters that no training transcript has and are left out, for "
                    "example %s", len(strange), ", ".join(strange[:5]))
    lexicon = pieces.lexicon(sorted({*spoken, *written}.difference(strange)))
    used = [len(pieces.spell(word)[0].phones) * count for word, count in spoken.items()]
    return lexicon, {"pieces": len(lexicon.phones()) - 1, "unspelled": len(strange), "pieces_digest": pieces.digest,
                     "pieces_per_word": sum(used) / max(1, sum(spoken.values()))}


def fits(scorer: NgramScorer, transcripts: Transcripts) -> dict[str, dict[str, float]]:
    """Perplexity and unknown-word rate (percent) of every split."""
    measured = {split: scorer.perplexity(sentences) for split, sentences in transcripts.items()}
    return {split: {"perplexity": each.perplexity, "unknown_rate": 100 * each.unknown_rate}
            for split, each in measured.items()}


def _language_model(settings: LangSettings, out: Path) -> tuple[Path, dict[str, Any]]:
    if settings.arpa:
        return settings.arpa, {}
    if not settings.text:
        raise UserError("a language model is needed: give --set lang.arpa=FILE (an ARPA model) or "
                        "--set lang.text=FILE (sentences, one a line)")
    arpa = out / "lm.arpa"
    return arpa, {"trained": train_arpa(settings.text, arpa, settings.ngram)}


def _speakable(word: str) -> bool:
    letters = word.replace("'", "")
    return letters.isascii() and letters.isalpha()
