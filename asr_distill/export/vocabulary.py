"""Another vocabulary for an exported recogniser, without training: more words, a grammar, a smaller language model.

The network and all else that is no matter of words is copied; lexicon, L, G and the search graph are made anew.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.decode.graph import compile_hclg
from asr_distill.errors import UserError, nearest
from asr_distill.export.bundle import GRAMMAR_FILES, GRAPH_FILE, Bundle
from asr_distill.export.manifest import check_replaceable, new_directory, read_manifest, write_manifest
from asr_distill.export.source import recogniser_in
from asr_distill.files import read_text, write_text
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.arpa import write_arpa
from asr_distill.lang.backoff_graph import BackoffGraph
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.grammar import grammar_fst
from asr_distill.lang.lang import Lang, with_lexicon
from asr_distill.lang.lexicon import Lexicon
from asr_distill.lang.new_words import NewWord, Pronounced, positioned, pronounce, read_new_words
from asr_distill.lang.phrase_graph import phrase_graph
from asr_distill.lang.phrases import read_phrases, words_of
from asr_distill.lang.prune import pruned
from asr_distill.logs import log

README = "README.md"
LARGEST_SHARE = 0.5  # of all words, that the user's may take from the language model


@dataclass(frozen=True)
class VocabularyConfig:
    """What is wanted. `words` and `grammar` are files (lang/new_words.py, lang/phrases.py say of what form)."""

    words: Path | None = None
    grammar: Path | None = None  # in place of the language model
    prune: float = 0.0  # n-grams that cost the perplexity relatively less than this are left out
    probability: float = 1e-4  # of each new word ...
    total: float = 1e-2  # ... but of all new words together not more
    spell: bool = False  # say unknown words by the names of their letters
    g2p: Path | None = None  # folder that keeps what was learned to guess pronunciations

    def __post_init__(self) -> None:
        if not (self.words or self.grammar or self.prune):
            raise ValueError("nothing to do: give words, a grammar or a pruning threshold")
        if self.grammar and self.prune:
            raise ValueError("a grammar takes the place of the language model: there is nothing to prune")
        if not 0 < self.probability < 1:
            raise ValueError(f"probability must be within (0, 1), not {self.probability:g}")
        if not 0 < self.total <= LARGEST_SHARE:
            raise ValueError(f"total must be within (0, {LARGEST_SHARE:g}], not {self.total:g}")
        if not 0 <= self.prune < 1:
            raise ValueError(f"prune must be within [0, 1), not {self.prune:g}")


def change_vocabulary(directory: Path, out: Path, config: VocabularyConfig) -> dict[str, Any]:
    """Write the recogniser `out` (replacing one there): that of `directory`, with another vocabulary.

    Returns what its manifest says of it under "vocabulary": the words with their pronunciations and where these are
    from, sizes of graph and language model before and after. Raises UserError, and leaves nothing, where a file is
    wrong or the recogniser lacks G.
    """
    directory = recogniser_in(directory)
    bundle = Bundle.load(directory, check_sources=True)
    check_replaceable(out, "recogniser", directory)
    hmm, lang = HmmModel.load(directory), Lang(directory)
    if not (directory / "G.fst").is_file():
        raise UserError(f"{directory / 'G.fst'}: no such file: this recogniser was exported without its language "
                        "model; run the recipe's export stage again")
    new = read_new_words(config.words, lang.phones) if config.words else {}
    with new_directory(out) as work:
        with tempfile.TemporaryDirectory() as folder:
            graph, facts = _with_grammar(lang, new, config, Path(folder)) if config.grammar else \
                _with_words(lang, new, config, Path(folder))
            changed = Lang(Path(folder))
            graph.write(changed.directory / "G.fst")
            compiled = compile_hclg(changed, hmm, changed.directory / "graph")
            _copy(bundle, changed, work)
        before = FstArrays.read(directory / GRAPH_FILE)
        facts |= {"grammar_arcs": [FstArrays.read(directory / "G.fst").num_arcs, graph.num_arcs],
                  "graph_states": [before.num_states, compiled["states"]],
                  "graph_arcs": [before.num_arcs, compiled["arcs"]],
                  "graph_bytes": [(directory / GRAPH_FILE).stat().st_size, compiled["bytes"]]}
        _seal(bundle, work, facts)
    return facts


def _with_words(lang: Lang, new: Mapping[str, NewWord], config: VocabularyConfig, folder: Path,
                ) -> tuple[FstArrays, dict[str, Any]]:
    """G with the words (and without what was pruned); the language directory is written to `folder`."""
    old = FstArrays.read(lang.directory / "G.fst")
    graph = BackoffGraph.of(old, lang.words, str(lang.directory / "G.fst"))
    modelled = {lang.words[label] for label in set(graph.labels.tolist())}
    _check_likes(new, modelled)
    spoken = pronounce(new.values(), lang.lexicon, spell=config.spell, cache=config.g2p,
                       pieces=lang.pieces)
    facts: dict[str, Any] = _spoken_facts(spoken)
    if config.prune:
        model = graph.ngrams()
        smaller = pruned(model, config.prune)
        facts |= {"prune": config.prune, "ngrams": [model.sizes, smaller.sizes]}
        write_arpa(smaller, folder / "lm.arpa")
        fst, _ = grammar_fst(folder / "lm.arpa", modelled, lang.directory / "words.txt")
        graph = BackoffGraph.of(FstArrays.from_fst(fst), lang.words, "the pruned language model")
    changed = with_lexicon(lang, _extended(lang, spoken, new), folder)
    graph = graph.relabelled(changed.words)
    unigrams = _unigrams(new, modelled, config)
    if (share := sum(unigrams.values())) > LARGEST_SHARE:
        raise UserError(f"{config.words}: its words have a probability of {share:.3g} together; more than "
                        f"{LARGEST_SHARE:g} is too much for the language model beside them")
    followers: dict[int, list[int]] = {}
    for each in new.values():
        if each.like:
            followers.setdefault(changed.word_ids[each.like], []).append(changed.word_ids[each.word])
    graph = graph.with_likenesses(followers).with_probabilities(
        {changed.word_ids[word]: probability for word, probability in unigrams.items()})
    facts["added"] = [word for word in new if word not in modelled]
    facts["unigrams"] = unigrams
    facts["like"] = {word: each.like for word, each in new.items() if each.like}
    if idle := [word for word in new if word in modelled and word not in unigrams and word not in spoken.entries]:
        log.info("known already, and nothing new is said of them: %s", ", ".join(idle[:10]))
    return graph.arrays(), facts


def _unigrams(new: Mapping[str, NewWord], modelled: set[str], config: VocabularyConfig) -> dict[str, float]:
    """Probabilities of the file, and the default for the other words that the language model lacks."""
    given = {word: each.probability for word, each in new.items() if each.probability}
    silent = [word for word in new if word not in modelled and word not in given and not new[word].like]
    default = min(config.probability, config.total / max(1, len(silent)))
    if default < config.probability:
        log.info("each of the %d new words gets a probability of %.2g, for together they may have %g; a word's own may "
                 "stand in the file", len(silent), default, config.total)
    return given | dict.fromkeys(silent, default)


def _check_likes(new: Mapping[str, NewWord], modelled: set[str]) -> None:
    for each in new.values():
        if each.like and each.like not in modelled:
            raise UserError(f"{each.place}: the language model has no word '{each.like}'"
                            f"{nearest(each.like, modelled)} that '{each.word}' could be like")
        if each.like and each.word in modelled:
            raise UserError(f"{each.place}: the language model has '{each.word}' already; give a probability "
                            f"instead of '{each.like}'")


def _with_grammar(lang: Lang, new: Mapping[str, NewWord], config: VocabularyConfig, folder: Path,
                  ) -> tuple[FstArrays, dict[str, Any]]:
    """G of the grammar alone, and a lexicon of its words; the language directory is written to `folder`."""
    assert config.grammar is not None
    for each in new.values():
        if each.like or each.probability:
            raise UserError(f"{each.place}: with a grammar the words' file gives pronunciations alone; the weights "
                            "stand in the grammar")
    phrase = read_phrases(config.grammar)
    words = words_of(phrase)
    wanted = [new.get(word) or NewWord(word, place) for word, place in words.items()]
    spoken = pronounce(wanted, lang.lexicon, spell=config.spell, cache=config.g2p,
                       pieces=lang.pieces)
    lexicon = _extended(lang, spoken, {each.word: each for each in wanted}).restricted(words)
    changed = with_lexicon(lang, lexicon, folder)
    graph = phrase_graph(phrase, changed.word_ids)
    return graph, {**_spoken_facts(spoken), "grammar": config.grammar.name, "words": len(words)}


def _extended(lang: Lang, spoken: Pronounced, new: Mapping[str, NewWord]) -> Lexicon:
    entries = positioned(spoken.entries, lang.phones, {word: each.place for word, each in new.items()},
                         position_dependent=lang.config.position_dependent)
    return lang.lexicon.extended(entries)


def _spoken_facts(spoken: Pronounced) -> dict[str, Any]:
    return {"pronunciations": {word: {"from": spoken.origin[word], "phones": [" ".join(each) for each in ways]}
                               for word, ways in spoken.entries.items()}}


def _copy(bundle: Bundle, changed: Lang, work: Path) -> None:
    """All that the old directory lists, but for what is made anew."""
    anew = {GRAPH_FILE, *GRAMMAR_FILES, *changed.alignment_files, README}
    for name in read_manifest(bundle.directory, digested=lambda name: False)["files"]:
        if name not in anew:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.directory / name, work / name)
    for name in (*GRAMMAR_FILES, *changed.alignment_files):
        shutil.copyfile(changed.directory / name, work / name)
    shutil.copyfile(changed.directory / "graph" / GRAPH_FILE, work / GRAPH_FILE)


def _seal(bundle: Bundle, work: Path, facts: dict[str, Any]) -> None:
    """README.md and, last, manifest.json. Word error rates measured before are not this recogniser's."""
    old = bundle.directory / README
    text = read_text(old) if old.is_file() else "# A speech recogniser made by asr_distill\n"
    write_text(work / README, f"{text}\n## Vocabulary\n{summary(facts)}\nWord error rates above were measured before "
                              "that.\n")
    names = [path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()]
    write_manifest(work, names, {"figures": {}, "vocabulary": {**facts, "figures_before": bundle.figures}})


def summary(facts: Mapping[str, Any]) -> str:
    """What was changed, in a line or two."""
    lines = []
    if "grammar" in facts:
        lines.append(f"Everything that is heard is a sentence of the grammar {facts['grammar']} ({facts['words']:,} "
                     "words).")
    elif added := facts["added"]:
        lines.append(f"{len(added):,} words were added: {', '.join(added[:20])}{' ...' if len(added) > 20 else ''}.")
    if "prune" in facts:
        before, after = (" + ".join(f"{size:,}" for size in sizes) for sizes in facts["ngrams"])
        lines.append(f"The language model was pruned at {facts['prune']:g}: {before} n-grams to {after}.")
    states, arcs, size = (facts[name] for name in ("graph_states", "graph_arcs", "graph_bytes"))
    lines.append(f"Search graph: {states[0]:,} states, {arcs[0]:,} arcs, {size[0]:,} bytes before; {states[1]:,}, "
                 f"{arcs[1]:,}, {size[1]:,} now.")
    return "\n".join(lines)

