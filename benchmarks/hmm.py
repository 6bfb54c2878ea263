"""Alignment and GMM training beside the Kaldi wheels: the same graphs, scores and mixtures, in one run on one thread.

    python benchmarks/hmm.py                                     # made-up speech
    python benchmarks/hmm.py --store DIR --lang DIR --model DIR  # frame store, language, hmm.json + gmm.safetensors

search   our Viterbi | kaldi_decoder.FasterDecoder over the same graphs, with gmm-align-compiled's beam of 10 and with
         none (exact). Scores are computed and graphs built beforehand.
em       our statistics over all frames | kaldi_hmm_gmm.AccumAmDiagGmm, frame by frame as its Python API is

Each figure is the best of --repeats passes, in frames a second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr_distill.emission import from_matrix
from asr_distill.features.store import FrameStore
from asr_distill.hmm.aligner import AlignConfig, Aligner
from asr_distill.hmm.em import UpdateConfig, accumulate, global_mixtures, split, update
from asr_distill.hmm.gmm import DiagGmm, Mixtures
from asr_distill.hmm.graph import GraphCompiler, UtteranceGraph
from asr_distill.hmm.model import HmmModel, monophone_model
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.kaldi import kaldi_decoder, kaldi_hmm_gmm, kaldifst
from asr_distill.lang.lang import Lang, prepare_lang
from asr_distill.lang.lexicon import Lexicon, Pronunciation

CPU = torch.device("cpu")
BEAM, NO_BEAM = 10.0, 1e9


@dataclass
class Work:
    """Utterances with their graphs, features and the pdf of every frame."""

    hmm: HmmModel
    mixtures: Mixtures
    graphs: list[UtteranceGraph]
    features: list[torch.Tensor]  # (frames, D) each
    pdfs: torch.Tensor  # (all frames,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("store", "lang", "model"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--utterances", type=int, default=80)
    parser.add_argument("--kaldi-frames", type=int, default=20_000, help="how many the frame-by-frame pass takes")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.store:
        work = read(args.store, args.lang, args.model, args.utterances)
    else:
        work = make(args.utterances)
    frames = sum(map(len, work.features))
    states = np.mean([len(graph) for graph in work.graphs])
    print(f"{len(work.graphs)} utterances, {frames:,} frames, {states:.0f} states an utterance, "
          f"{work.hmm.num_pdfs} pdfs, {len(work.mixtures.weights):,} Gaussians, one thread")
    measure_search(work, args.repeats)
    measure_em(work, args.kaldi_frames, args.repeats)


def measure_search(work: Work, repeats: int) -> None:
    config = AlignConfig()
    aligner, table = Aligner(work.hmm, config, CPU), TransitionTable(work.hmm)
    scores = [work.mixtures.score(features) for features in work.features]
    lengths = [len(score) for score in scores]
    paths: dict[int, float] = {}

    def ours() -> None:
        for index, path in aligner.align(work.graphs, lengths, lambda i: from_matrix(scores[i])):
            paths[index] = path.score if path else -np.inf

    fsts = [kaldifst.StdConstFst(kaldi_graph(graph, table, config.self_loop_scale)) for graph in work.graphs]
    scaled = [np.ascontiguousarray(score.numpy() * config.acoustic_scale) for score in scores]

    def theirs(beam: float, found: dict[int, float]) -> None:
        for index, (fst, score) in enumerate(zip(fsts, scaled, strict=True)):
            options = kaldi_decoder.FasterDecoderOptions(beam=beam, max_active=1 << 30)
            decoder = kaldi_decoder.FasterDecoder(fst, options)
            decoder.decode(kaldi_decoder.DecodableCtc(score))
            _, lattice = decoder.get_best_path()
            weight = kaldifst.get_linear_symbol_sequence(lattice)[3]
            found[index] = -(weight.value1 + weight.value2) if decoder.reached_final() else -np.inf

    rate = sum(lengths) / best_time(ours, repeats)
    for name, beam in ((f"FasterDecoder, beam {BEAM:g}", BEAM), ("FasterDecoder, no beam", NO_BEAM)):
        found: dict[int, float] = {}
        other = sum(lengths) / best_time(lambda beam=beam, found=found: theirs(beam, found), repeats)
        same = sum(abs(found[index] - score) <= 0.01 + 1e-5 * abs(score) for index, score in paths.items())
        report("search", rate, f"{name} (our best score in {same} of {len(paths)} utterances)", other)


def measure_em(work: Work, kaldi_frames: int, repeats: int) -> None:
    features = torch.cat(work.features)
    model = kaldi_hmm_gmm.AmDiagGmm()
    for begin, end in zip(work.mixtures.offsets, work.mixtures.offsets[1:], strict=False):
        gmm = kaldi_hmm_gmm.DiagGmm(end - begin, features.shape[1])
        gmm.set_weights(work.mixtures.weights[begin:end].numpy())
        gmm.set_invvars_and_means(1 / work.mixtures.variances[begin:end].numpy(),
                                  work.mixtures.means[begin:end].numpy())
        gmm.compute_gconsts()
        model.add_pdf(gmm)
    rows, owners = features[:kaldi_frames].numpy(), work.pdfs[:kaldi_frames].tolist()

    def theirs() -> None:
        accumulators = kaldi_hmm_gmm.AccumAmDiagGmm()
        accumulators.init(model, 15)
        for row, pdf in zip(rows, owners, strict=True):
            accumulators.accumulate_for_gmm(model, row, pdf, 1.0)

    seconds = best_time(lambda: accumulate(work.mixtures, features, work.pdfs), repeats)
    report("em", len(features) / seconds, "kaldi_hmm_gmm", len(rows) / best_time(theirs, repeats))


def best_time(action: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the fastest pass: other programs on the machine do not count."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        action()
        times.append(time.process_time() - begin)
    return min(times)


def report(name: str, rate: float, theirs: str, other: float) -> None:
    print(f"{name}: ours {rate:,.0f} frames/s, {rate / 100:,.0f} x real time; {theirs} {other:,.0f} frames/s: "
          f"ratio {rate / other:.2f}")


def kaldi_graph(graph: UtteranceGraph, table: TransitionTable, self_loop_scale: float) -> kaldifst.StdVectorFst:
    """The same states and weights as an FST: input label = pdf + 1."""
    loop, forward = (log * self_loop_scale for log in table.logs(graph.phone, graph.state, graph.pdf))
    predecessors, weights = graph.predecessors()
    fst = kaldifst.StdVectorFst()
    fst.start = fst.add_state()
    nodes = [fst.add_state() for _ in range(len(graph))]
    for s, node in enumerate(nodes):
        label = int(graph.pdf[s]) + 1
        fst.add_arc(node, kaldifst.StdArc(label, 0, float(-loop[s]), node))
        if np.isfinite(graph.initial[s]):
            fst.add_arc(0, kaldifst.StdArc(label, 0, float(-graph.initial[s]), node))
        for p, weight in zip(predecessors[s], weights[s], strict=True):
            if np.isfinite(weight):
                fst.add_arc(nodes[p], kaldifst.StdArc(label, 0, float(-weight - forward[p]), node))
        if np.isfinite(graph.final[s]):
            fst.set_final(node, float(-graph.final[s] - forward[s]))
    return fst


def read(store_dir: Path, lang_dir: Path, model_dir: Path, count: int) -> Work:
    """Real speech: the store's utterances at equal steps of its order, aligned by the model."""
    store, lang, hmm = FrameStore(store_dir), Lang(lang_dir), HmmModel.load(model_dir)
    gmm, compiler = DiagGmm.load(model_dir, CPU), GraphCompiler(hmm, lang)
    chosen = np.unique(np.linspace(0, len(store.utterances) - 1, count).astype(int)).tolist()
    graphs = [compiler.compile(store.utterances[i].words) for i in chosen]
    features = [gmm.frontend(store.features(i, CPU)) for i in chosen]
    return Work(hmm, gmm.mixtures, graphs, features, align(hmm, gmm.mixtures, graphs, features))


def make(count: int) -> Work:
    """Speech of a made-up language: a noisy point in feature space for every state of 40 phones."""
    random = np.random.default_rng(0)
    phones = [f"P{n}" for n in range(40)]
    lexicon = Lexicon({"<UNK>": (Pronunciation(("SPN",)),), **{
        f"W{n}": tuple(Pronunciation(tuple(random.choice(phones, random.integers(2, 6))))
                       for _ in range(1 + (n % 5 == 0))) for n in range(500)}})
    with tempfile.TemporaryDirectory() as directory:
        lang = prepare_lang(lexicon, Path(directory))
    hmm = monophone_model(lang.phones)
    compiler = GraphCompiler(hmm, lang)
    centres = random.normal(0, 1, (hmm.num_pdfs, 39))
    graphs, features, owners = [], [], []
    for _ in range(count):
        words = [f"W{n}" for n in random.integers(0, 500, 35)]
        graphs.append(compiler.compile(words))
        spoken = ["SIL", *(p for word in words for p in lexicon.pronunciations(word)[0].phones), "SIL"]
        pdfs = np.array([hmm.tree.pdf(0, lang.phones.index(p) + 1, 0, s) for p in spoken for s in range(3)])
        owners.append(np.repeat(pdfs, random.integers(1, 6, len(pdfs))))
        frames = centres[owners[-1]] + random.normal(0, 1, (len(owners[-1]), 39))
        features.append(torch.from_numpy(frames).float())
    everything, pdfs = torch.cat(features), torch.from_numpy(np.concatenate(owners))
    mixtures = global_mixtures(everything, hmm.num_pdfs)
    mixtures = update(mixtures, accumulate(mixtures, everything, pdfs), UpdateConfig())
    return Work(hmm, split(mixtures, [8] * hmm.num_pdfs, seed=0), graphs, features, pdfs)


def align(hmm: HmmModel, mixtures: Mixtures, graphs: list[UtteranceGraph], features: list[torch.Tensor],
          ) -> torch.Tensor:
    aligner = Aligner(hmm, AlignConfig(), CPU)
    pdfs = [np.zeros(0, np.int64)] * len(graphs)
    for index, path in aligner.align(graphs, [len(f) for f in features], lambda i: mixtures.scorer(features[i])):
        if path is None:
            raise SystemExit(f"utterance {index} of the selection has too few frames for its words")
        pdfs[index] = graphs[index].pdf[path.states].astype(np.int64)
    return torch.from_numpy(np.concatenate(pdfs))


if __name__ == "__main__":
    main()
