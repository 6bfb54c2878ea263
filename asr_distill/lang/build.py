"""From what a user brings (lexicon or none, ARPA or text) to a language directory with L and G."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.errors import UserError
from asr_distill.lang.arpa import write_arpa
from asr_distill.lang.g2p import G2pConfig, covering
from asr_distill.lang.lang import LangConfig, add_grammar, prepare_lang
from asr_distill.lang.lexicon import Lexicon
from asr_distill.lang.ngram import NgramConfig, train_arpa, tried
from asr_distill.lang.ngram import train as train_ngrams
from asr_distill.lang.ngram_model import BEGIN, END, is_saved
from asr_distill.lang.ngram_scorer import NgramScorer, check_model
from asr_distill.logs import log

LARGE = "large"  # folder of the large language model
Transcripts = Mapping[str, Sequence[Sequence[str]]]  # split -> words of each utterance


@dataclass(frozen=True)
class LangSettings:
    """Words, pronunciations and the n-gram model."""

    lexicon: Path | None = None  # LibriSpeech's format; without it CMUdict
    arpa: Path | None = None  # an n-gram model; without it one is trained on `text`
    text: Path | None = None  # one sentence a line
    large_arpa: Path | None = None  # a second, larger model, for rescoring
    large: NgramConfig | None = None  # or train it on `text`; without `arpa` the small one is it, pruned by ngram.prune
    strip_stress: bool = True
    guess_lm_words: bool = True  # by g2p, where CMUdict lacks them; false: they are dropped from the model
    ngram: NgramConfig = NgramConfig()
    g2p: G2pConfig = G2pConfig()
    silence: LangConfig = LangConfig()

    def __post_init__(self) -> None:
        if self.large and self.large_arpa:
            raise ValueError("large and large_arpa: give one of them")
        if self.large and not self.arpa and not self.ngram.prune > self.large.prune:
            raise ValueError("ngram.prune must be greater than large.prune: the small model is the large one, pruned")


def build_lang(settings: LangSettings, transcripts: Transcripts, train: str, out: Path) -> dict[str, Any]:
    """Write the language directory `out`: the words of the LM and of the training split's transcripts.

    A word of the LM without a pronunciation is dropped where a lexicon was given (or `guess_lm_words` is off), and
    guessed by g2p where CMUdict serves; a word of the training transcripts is always given one. Where there is a
    large model it stands in out/large (NgramScorer(out / LARGE)). Returns figures: words, guessed, n-grams, and for
    every split the unknown-word rate (percent) and the perplexity, also of the large model (large_...).

    Raises UserError where there is neither ARPA nor text, or a training word cannot be pronounced.
    """
    lexicon = Lexicon.read(settings.lexicon, strip_stress=settings.strip_stress) if settings.lexicon else \
        Lexicon.from_cmudict(strip_stress=settings.strip_stress)
    arpa, figures = _language_models(settings, out)
    scorers = {"": NgramScorer(arpa)}
    if is_saved(out / LARGE):
        scorers["large_"] = NgramScorer(out / LARGE)
    spoken = {word for words in transcripts[train] for word in words}
    guess = settings.guess_lm_words and not settings.lexicon
    modelled = [word for word in scorers[""].model.words
                if word not in (BEGIN, END) and (word in lexicon or (guess and _speakable(word)))]
    lexicon, guessed = covering(lexicon, sorted(spoken.union(modelled)), out / "g2p", settings.g2p)
    if guessed:
        log.info("pronunciations of %d words guessed by g2p, for example %s", len(guessed), ", ".join(guessed[:5]))
    lang = prepare_lang(lexicon, out, settings.silence)
    grammar = add_grammar(lang, arpa)
    fits = {split: _fit(scorers, sentences) for split, sentences in transcripts.items()}
    return figures | {"words": len(lexicon), "guessed": len(guessed), "grammar": vars(grammar), "splits": fits}


def _language_models(settings: LangSettings, out: Path) -> tuple[Path, dict[str, Any]]:
    """The small model's ARPA file, and figures; the large one goes to out/large."""
    if not settings.text and (settings.large or not settings.arpa):
        raise UserError("a language model is needed: give --set lang.arpa=FILE (an ARPA model) or "
                        "--set lang.text=FILE (sentences, one a line)")
    figures: dict[str, Any] = {}
    arpa = settings.arpa or out / "lm.arpa"
    if settings.large_arpa:
        large = NgramScorer(settings.large_arpa, out / LARGE).model
        check_model(large, str(settings.large_arpa))
        figures["large"] = {"ngrams": large.sizes}
    if settings.text and settings.large:
        trained = train_ngrams(settings.text, settings.large)
        large = trained.pruned(settings.large.prune) if settings.large.prune else trained.model
        figures["large"] = trained.figures | tried(large, settings.text, "the large language model")
        large.save(out / LARGE)
        if not settings.arpa:
            small = trained.pruned(settings.ngram.prune)
            figures["trained"] = trained.figures | tried(small, settings.text, str(arpa))
            write_arpa(small, arpa)
    elif settings.text and not settings.arpa:
        figures["trained"] = train_arpa(settings.text, arpa, settings.ngram)
    return arpa, figures


def _fit(scorers: Mapping[str, NgramScorer], sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    measured = {name: scorer.perplexity(sentences) for name, scorer in scorers.items()}
    return {f"{name}perplexity": each.perplexity for name, each in measured.items()} | {
        f"{name}unknown_rate": 100 * each.unknown_rate for name, each in measured.items()}


def _speakable(word: str) -> bool:
    letters = word.replace("'", "")
    return letters.isascii() and letters.isalpha()
