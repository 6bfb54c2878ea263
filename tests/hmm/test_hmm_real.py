"""Monophone training on real LibriSpeech: against an energy detector, pocketsphinx's alignment and Kaldi's search."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hmm_toys import kaldi_best_score, kaldi_graph

from asr_distill.corpus.librispeech import prepare
from asr_distill.corpus.manifest import load_split
from asr_distill.emission import from_matrix
from asr_distill.features.compute import compute_store
from asr_distill.features.fbank import FbankConfig
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import AlignConfig, align_store, align_words
from asr_distill.hmm.aligner import Aligner
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.mono import MonoConfig, train_mono
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.lang.lang import prepare_lang
from asr_distill.lang.lexicon import Lexicon

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
CONFIG = MonoConfig(utterances=150, iterations=16, gaussians=500, growth_iterations=12, realign=tuple(range(1, 13)))


@pytest.fixture(scope="module")
def real(shared: Path, librispeech: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Store and language of the slice, and a short training on its 150 shortest utterances."""
    work = tmp_path_factory.mktemp("real")
    prepare(librispeech, {"train": "train-clean-5"}, work / "corpus")
    cuts = load_split(work / "corpus", "train", librispeech)
    compute_store(cuts, work / "store", FbankConfig(), CPU, workers=1, label="features")
    store = FrameStore(work / "store")
    (work / "lexicon.txt").write_bytes(lzma.decompress((shared / "reference" / "lexicon.txt.xz").read_bytes()))
    known = Lexicon.read(work / "lexicon.txt")
    spoken = {word for utterance in store.utterances for word in utterance.words}
    lang = prepare_lang(known.restricted(word for word in spoken if word in known), work / "lang")
    hmm, gmm, figures = train_mono(store, lang, CONFIG, work / "mono", CPU)
    return store, lang, hmm, gmm, figures


def test_training_learns(real: Any) -> None:
    _, _, hmm, _, figures = real
    likelihoods = np.array(figures["log_likelihood_per_frame"])
    assert (np.diff(likelihoods[:13]) > 0).all() and likelihoods[-1] > likelihoods[0] + 8
    assert figures["failed"] == [] and hmm.num_pdfs < figures["gaussians"] <= 510
    assert 0.10 < figures["silence_share"] < 0.25


def test_speech_begins_and_ends_where_the_energy_does(real: Any) -> None:
    store, lang, hmm, gmm, _ = real
    alignment = align_store(gmm, store, hmm, lang, AlignConfig(), CPU)
    assert alignment.aligned.all() and 0.10 < alignment.figures["silence_share"] < 0.25
    begins, ends = [], []
    for begin, end in zip(store.offsets, store.offsets[1:], strict=False):
        power = np.log(np.exp(store.frames[begin:end].astype(np.float64)).sum(1) + 1e-10)
        power = np.convolve(np.pad(power, 2, "edge"), np.ones(5) / 5, "valid")
        low, high = np.percentile(power, [3, 95])
        loud = np.flatnonzero(power > low + 0.3 * (high - low))
        speech = np.flatnonzero(alignment.phone_ids[begin:end] != 1)
        begins.append(abs(speech[0] - loud[0]))
        ends.append(abs(speech[-1] - loud[-1]))
    assert np.median(begins) <= 5 and np.median(ends) <= 6  # frames; breaths are loud too, so only the median


def test_words_lie_where_pocketsphinx_finds_them(real: Any, librispeech: Path) -> None:
    """Another HMM system, trained by others on other data: 97 % of word starts within 100 ms."""
    sphinx = pytest.importorskip("pocketsphinx")
    store, lang, hmm, gmm, _ = real
    decoder = sphinx.Decoder(sphinx.Config(lm=None, loglevel="FATAL", beam=1e-80, wbeam=1e-60, pbeam=1e-80))
    apart: list[int] = []
    for index in np.argsort(np.diff(store.offsets))[:24].tolist():
        words = [word.lower() for word in store.utterances[index].words]
        if any(decoder.lookup_word(word) is None for word in words):
            continue
        speaker, chapter, _ = store.utterances[index].id.split("-")
        audio = librispeech / "train-clean-5" / speaker / chapter / f"{store.utterances[index].id}.flac"
        decoder.set_align_text(" ".join(words))
        decoder.start_utt()
        decoder.process_raw(soundfile.read(audio, dtype="int16")[0].tobytes(), full_utt=True)
        decoder.end_utt()
        theirs = [segment for segment in decoder.seg() or [] if segment.word[0] not in "<["]
        ours = align_words(gmm.log_likelihoods(store.features(index, CPU)), store.utterances[index].words, hmm, lang,
                           AlignConfig())
        if len(theirs) == len(ours):
            apart += [abs(a.start_frame - b.start_frame) for a, b in zip(ours, theirs, strict=True)]
    assert len(apart) > 200
    assert np.median(apart) <= 2 and np.mean(np.array(apart) <= 10) >= 0.97


def test_best_scores_equal_kaldi_faster_decoder(real: Any) -> None:
    store, lang, hmm, gmm, _ = real
    compiler = GraphCompiler(hmm, lang)
    indices = np.argsort(np.diff(store.offsets))[::40].tolist()
    graphs = [compiler.compile(store.utterances[i].words) for i in indices]
    scores = [gmm.log_likelihoods(store.features(i, CPU)) for i in indices]
    table = TransitionTable(hmm)

    paths = dict(Aligner(hmm, AlignConfig(), CPU).align(graphs, [len(s) for s in scores],
                                                       lambda at: from_matrix(scores[at])))
    for at, graph in enumerate(graphs):
        best = kaldi_best_score(kaldi_graph(graph, table, 0.1), 0.1 * scores[at].numpy(), beam=1000.0)
        assert paths[at] is not None and best is not None
        assert paths[at].score == pytest.approx(best, rel=1e-5, abs=0.01)
