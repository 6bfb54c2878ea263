"""Stages of every speech recipe: features, language, the ladder of GMMs to senones; graphs and adaptation to decode."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from asr_distill.corpus.manifest import load_split
from asr_distill.decode.graph import compile_hclg
from asr_distill.decode.pools import search_pool
from asr_distill.decode.search import JOURNAL, SearchPool, decode_store, read_hypotheses
from asr_distill.features.compute import compute_store
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json, write_json
from asr_distill.hmm.align import Alignment, align_store
from asr_distill.hmm.gmm import DiagGmm
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.mono import train_mono
from asr_distill.hmm.prons import count_pronunciations
from asr_distill.hmm.sat import SatModel, train_sat
from asr_distill.hmm.sat_adapt import adapt_store, align_adapted
from asr_distill.hmm.triphone import TriphoneConfig, train_lda, train_triphone
from asr_distill.lang.build import build_lang
from asr_distill.lang.lang import Lang, with_counts
from asr_distill.lang.large import build_large
from asr_distill.recipe import StageRun, stage
from local.resources import TRAIN, Resources
from recipes.common import (
    FINAL,
    NETWORK_TRAIN,
    RUNGS,
    aligner_is_there,
    decoder_is_there,
    evaluate,
    gmm_systems,
    stores_of,
)


@stage(reads=["corpus"], settings=["corpus", "features", "speed"], resumable=True)
def features(run: StageRun) -> dict:
    """Log-mel filterbank frames of every split, computed in batches on the device."""
    root = Resources.load(run.input("corpus"), run.settings.corpus.dir).root

    def compute(split: str, name: str, speeds: tuple[float, ...]) -> dict[str, Any]:
        return compute_store(load_split(run.input("corpus"), split, root), run.out / name, run.settings.features,
                             run.device, workers=run.settings.corpus.workers, label=f"features of {name}",
                             speeds=speeds, executor=run.executor)

    figures = {split: compute(split, split, (1.0,)) for split in run.figures("corpus")}
    factors = run.settings.speed.factors
    return figures | ({NETWORK_TRAIN: compute(TRAIN, NETWORK_TRAIN, factors)} if factors != (1.0,) else {})


@stage(reads=["corpus", "features"], settings=["corpus", "lang"], resumable=True)
def lang(run: StageRun) -> dict:
    """Words, pronunciations (g2p for unknown training words), n-gram model; L and G."""
    settings = Resources.load(run.input("corpus"), run.settings.corpus.dir).complete(run.settings.lang)
    return build_lang(settings, _transcripts(run), TRAIN, run.out)


@stage(reads=["features", "lang"], settings=["mono"], resumable=True, needs=aligner_is_there("mono", "align"))
def mono(run: StageRun) -> dict:
    """Monophone GMM from a flat start; the training split aligned."""
    lang, store, config = Lang(run.input("lang")), FrameStore(run.input("features") / TRAIN), run.settings.mono
    hmm, gmm, figures = train_mono(store, lang, config, run.out / "work", run.device)
    gmm.save(run.out)
    alignment = align_store(gmm, store, hmm, lang, config.align, run.device, "mono: aligning", executor=run.executor)
    return figures | _finish(run, hmm, alignment)


@stage(reads=["features", "lang", "mono"], settings=["tri1"], resumable=True,
       needs=aligner_is_there("tri1", "align"))
def tri1(run: StageRun) -> dict:
    """Triphones on cepstra with deltas: the first senones; the training split aligned."""
    return _triphones(run, "mono", train_triphone, run.settings.tri1)


@stage(reads=["features", "lang", "tri1"], settings=["tri2b"], resumable=True,
       needs=aligner_is_there("tri2b", "align"))
def tri2b(run: StageRun) -> dict:
    """Triphones on spliced cepstra under LDA and MLLT; the training split aligned."""
    return _triphones(run, "tri1", train_lda, run.settings.tri2b)


@stage(reads=["features", "lang", "tri2b"], settings=["tri3b"], resumable=True,
       needs=aligner_is_there("tri3b", "align"))
def tri3b(run: StageRun) -> dict:
    """Speaker-adaptive training under fMLLR; the training split aligned."""
    lang, store, config = Lang(run.input("lang")), FrameStore(run.input("features") / TRAIN), run.settings.tri3b
    below = DiagGmm.load(run.input("tri2b"), run.device)
    hmm, sat, figures = train_sat(store, *_below(run, "tri2b"), below, lang, config, run.out / "work", run.device)
    sat.save(run.out)
    alignment, _ = align_adapted(sat, store, hmm, lang, config.align, config.fmllr, run.out / "work" / "adapted",
                                 run.device, "tri3b: aligning", executor=run.executor)
    return figures | _finish(run, hmm, alignment)


@stage(reads=["features", "lang", "tri3b"], settings=["pronunciations"])
def pronunciations(run: StageRun) -> dict:
    """Pronunciation and silence probabilities from the alignment, put back into L."""
    lang, store = Lang(run.input("lang")), FrameStore(run.input("features") / TRAIN)
    alignment, hmm = _below(run, "tri3b")
    counts = count_pronunciations(alignment, store, hmm, lang)
    again = with_counts(lang, counts, run.out, run.settings.pronunciations)
    return {"utterances": counts.utterances, "unmatched": counts.unmatched,
            "silence_probability": again.silence_probability}


@stage(reads=["features", "pronunciations", "tri3b"], settings=["align"], resumable=True,
       needs=aligner_is_there("align", "search"))
def align(run: StageRun) -> dict:
    """Every frame of every split aligned to a senone under fMLLR; what networks train on keeps its adapted frames."""
    settings, lang = run.settings.align, Lang(run.input("pronunciations"))
    hmm, sat = HmmModel.load(run.input("tri3b")), SatModel.load(run.input("tri3b"), run.device)
    hmm.save(run.out)
    figures = {}
    for split, store in stores_of(run).items():
        if (run.out / split / "alignment.json").is_file():
            figures[split] = Alignment.load(run.out / split).figures
            continue
        adapted = run.out / split / "adapted"
        alignment, _ = align_adapted(sat, store, hmm, lang, settings.search, settings.fmllr, adapted, run.device,
                                     f"aligning {split}", executor=run.executor)
        if split not in (TRAIN, NETWORK_TRAIN):
            shutil.rmtree(adapted)  # adapted on the transcripts: fair as a reference for frames, not for decoding
        alignment.save(run.out / split)
        figures[split] = alignment.figures
    return figures


@stage(reads=["features", "lang"], settings=["large_lm"])
def large_lm(run: StageRun) -> dict:
    """The large language model that rescores, where one is given or text to train it on."""
    return build_large(run.settings.large_lm, _transcripts(run), run.out) if run.settings.large_lm.wanted else {}


@stage(reads=["lang", "pronunciations", "mono", "tri1", "tri2b", "tri3b"], settings=["decode.systems"],
       resumable=True)
def graph(run: StageRun) -> dict:
    """The decoding graphs HCLG: one over the final senones, one for each lower rung that is decoded."""
    figures = {}
    for rung in RUNGS:
        if rung != FINAL and rung not in run.settings.decode.systems:
            continue
        compiled = run.out / rung / "graph.json"  # by an interrupted run
        if not compiled.is_file():
            language = Lang(run.input("pronunciations" if rung == FINAL else "lang"))
            write_json(compiled, compile_hclg(language, HmmModel.load(run.input(rung)), run.out / rung))
        figures[rung] = read_json(compiled)
    return figures


@stage(reads=["features", "pronunciations", "tri3b", "graph"],
       settings=["align", "decode.systems", "decode.first_pass", "decode.workers", "decode.backend", "teachers"],
       resumable=True, needs=decoder_is_there)
def adapt(run: StageRun) -> dict:
    """Speakers of the tuning and reported splits adapted in two passes of decoding, where a system needs it."""
    if not (run.settings.teachers.adapted or "tri3b" in run.settings.decode.systems):
        return {}
    sat = SatModel.load(run.input("tri3b"), run.device)
    decode = run.settings.decode
    with search_pool(decode.workers, decode.backend, run.device, run.executor) as pool:
        return {split: {"partial": _adapt_split(run, split, store, sat, pool)}
                for split, store in stores_of(run).items() if split not in (TRAIN, NETWORK_TRAIN)}


@stage(reads=["features", "lang", *RUNGS, "align", "large_lm", "graph", "adapt"], settings=["decode"], resumable=True,
       needs=decoder_is_there)
def rungs(run: StageRun) -> dict:
    """Word error rates of the ladder's GMMs: scale and penalty tuned on the tuning split, then the others decoded."""
    return evaluate(run, gmm_systems(run))


def _adapt_split(run: StageRun, split: str, store: FrameStore, sat: SatModel, pool: SearchPool) -> int:
    """Two passes: decode, align the words, adapt. Leaves split/adapted; how many utterances the second lost the end of.

    What is there is not made again, whenever the run before was killed.
    """
    lang, hmm = Lang(run.input("pronunciations")), HmmModel.load(run.input("tri3b"))
    work = run.out / split
    if not (work / "adapted").is_dir():
        for number, model in enumerate((sat.independent, sat.adapted), 1):
            label = f"{split}: pass {number}"
            found = decode_store(model, store, run.input("graph") / FINAL, run.settings.decode.first_pass,
                                 work=work / f"pass{number}", device=run.device, label=label, pool=pool)
            words = {hypothesis.id: hypothesis.words for hypothesis in found}
            alignment = align_store(model, store, hmm, lang, run.settings.align.search, run.device,
                                    f"{label}: aligning", transcripts=words, executor=run.executor)
            store = adapt_store(sat, store, alignment, hmm.phones, run.settings.align.fmllr, work / f"adapted{number}",
                                run.device)
        shutil.rmtree(work / "adapted1")
        (work / "adapted2").rename(work / "adapted")
    return sum(not hypothesis.reached_final for hypothesis in read_hypotheses(work / "pass2" / JOURNAL))


def _transcripts(run: StageRun) -> dict[str, list[tuple[str, ...]]]:
    return {split: [utterance.words for utterance in store.utterances]
            for split, store in stores_of(run).items() if split != NETWORK_TRAIN}


def _triphones(run: StageRun, below: str, train: Callable[..., Any], config: TriphoneConfig) -> dict:
    """A rung on the alignment of the one below it, for all speakers alike."""
    lang, store = Lang(run.input("lang")), FrameStore(run.input("features") / TRAIN)
    hmm, gmm, figures = train(store, *_below(run, below), lang, config, run.out / "work", run.device)
    gmm.save(run.out)
    alignment = align_store(gmm, store, hmm, lang, config.align, run.device, f"{run.stage.name}: aligning",
                            executor=run.executor)
    return figures | _finish(run, hmm, alignment)


def _below(run: StageRun, rung: str) -> tuple[Alignment, HmmModel]:
    """The alignment of the training split that a rung ended with, and its HMM."""
    return Alignment.load(run.input(rung) / TRAIN), HmmModel.load(run.input(rung))


def _finish(run: StageRun, hmm: HmmModel, alignment: Alignment) -> dict:
    """Save a rung's HMM and alignment; its working files go."""
    hmm.save(run.out)
    alignment.save(run.out / TRAIN)
    shutil.rmtree(run.out / "work")
    return {"aligned": float(alignment.aligned.mean())}


STAGES = [features, lang, mono, tri1, tri2b, tri3b, pronunciations, align, large_lm, graph, adapt, rungs]
