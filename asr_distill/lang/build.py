"""From what a user brings (lexicon or none, ARPA or text) to a language directory with L and G."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.errors import UserError
from asr_distill.lang.g2p import G2pConfig, covering
from asr_distill.lang.lang import LangConfig, add_grammar, prepare_lang
from asr_distill.lang.lexicon import Lexicon
from asr_distill.lang.ngram import NgramConfig, train_arpa
from asr_distill.lang.ngram_model import BEGIN, END
from asr_distill.lang.ngram_scorer import NgramScorer
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


def build_lang(settings: LangSettings, transcripts: Transcripts, train: str, out: Path) -> dict[str, Any]:
    """Write the language directory `out`: the words of the LM and of the training split's transcripts.

    A word of the LM without a pronunciation is dropped where a lexicon was given (or `guess_lm_words` is off), and
    guessed by g2p where CMUdict serves; a word of the training transcripts is always given one. The n-gram model
    stays in out/small (NgramScorer(out / SMALL)), for rescoring. Returns figures: words, guessed, n-grams, and for
    every split the unknown-word rate (percent) and the perplexity.

    Raises UserError where there is neither ARPA nor text, or a training word cannot be pronounced.
    """
    lexicon = Lexicon.read(settings.lexicon, strip_stress=settings.strip_stress) if settings.lexicon else \
        Lexicon.from_cmudict(strip_stress=settings.strip_stress)
    arpa, figures = _language_model(settings, out)
    scorer = NgramScorer(arpa)
    scorer.model.save(out / SMALL)
    spoken = {word for words in transcripts[train] for word in words}
    guess = settings.guess_lm_words and not settings.lexicon
    modelled = [word for word in scorer.model.words
                if word not in (BEGIN, END) and (word in lexicon or (guess and _speakable(word)))]
    lexicon, guessed = covering(lexicon, sorted(spoken.union(modelled)), out / "g2p", settings.g2p)
    if guessed:
        log.info("pronunciations of %d words guessed by g2p, for example %s", len(guessed), ", ".join(guessed[:5]))
    lang = prepare_lang(lexicon, out, settings.silence)
    grammar = add_grammar(lang, arpa)
    return figures | {"words": len(lexicon), "guessed": len(guessed), "grammar": vars(grammar),
                      "splits": fits(scorer, transcripts)}


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
