"""Speed and memory of the beam search on one core: ours (best path, and n best), kaldi_decoder's FasterDecoder, and
k2's core where `k2py` is installed.

    python benchmarks/decoder.py --graph exp/mini_librispeech/10_graph --log-likelihoods DIR_OF_NPY
    python benchmarks/decoder.py --graph DIR            # log-likelihoods made from random paths through the graph
    python benchmarks/decoder.py                        # and a graph of a made-up vocabulary

Each decoder runs in a process of its own, after a first short search (ours is compiled then). RTF is CPU seconds per
second of audio (10 ms frames); memory is the process's peak, loading included. k2 needs a graph without input epsilons:
it is skipped where that grows too large.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.decode.decoder import Decoder, SearchConfig, read_words
from asr_distill.kaldi import kaldi_decoder, kaldifst
from asr_distill.lang.fst_arrays import FstArrays

MAX_K2_ARCS = 1_500_000
Words = list[tuple[str, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, help="directory with HCLG.fst and words.txt")
    parser.add_argument("--log-likelihoods", type=Path, help="directory of .npy files, unscaled (frames, pdfs)")
    parser.add_argument("--utterances", type=int, default=10, help="how many to make, or at most to read")
    parser.add_argument("--words", type=int, default=200, help="vocabulary of the made-up graph")
    parser.add_argument("--beam", type=float, default=13.0)
    parser.add_argument("--max-active", type=int, default=7000)
    parser.add_argument("--acoustic-scale", type=float, default=0.1)
    args = parser.parse_args()
    config = SearchConfig(beam=args.beam, max_active=args.max_active, acoustic_scale=args.acoustic_scale)
    with tempfile.TemporaryDirectory() as scratch:
        graph = args.graph or made_up_graph(Path(scratch) / "graph", args.words)
        matrices = Path(scratch) / "matrices"
        if args.log_likelihoods:
            matrices = args.log_likelihoods
        else:
            made_up_matrices(graph, matrices, args.utterances)
        report(graph, matrices, args.utterances, config)


def report(graph: Path, matrices: Path, limit: int, config: SearchConfig) -> None:
    frames = sum(map(len, load(matrices, limit)))
    print(f"{graph}: {(graph / 'HCLG.fst').stat().st_size / 1e6:.1f} MB; {frames:,} frames; {config}")
    print(f"{'':24} {'load s':>8} {'search s':>9} {'RTF':>8} {'peak MB':>9}  same words as the first")
    first: Words | None = None
    for name, run in (("kaldi_decoder", bare), ("asr_distill", ours), ("asr_distill, 300 best", ours_nbest),
                      ("k2 (k2py)", k2)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measured, (run, graph, matrices, limit, config))
        if isinstance(result, str):
            print(f"{name:24} skipped: {result}")
            continue
        loading, seconds, peak, words = result
        first = first or words
        same = sum(a == b for a, b in zip(first, words, strict=True))
        print(f"{name:24} {loading:8.2f} {seconds:9.3f} {seconds / frames * 100:8.4f} {peak:9.0f}  "
              f"{same} of {len(words)}")


def measured(run: Callable[..., Any], graph: Path, matrices: Path, limit: int, config: SearchConfig,
             ) -> tuple[float, float, float, Words] | str:
    """(seconds of loading, CPU seconds of the search, peak MB, words), or why it was skipped."""
    inputs = load(matrices, limit)
    result = run(graph, inputs, config)
    if isinstance(result, str):
        return result
    return (*result[:2], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, result[2])


def ours(graph: Path, inputs: list[np.ndarray], config: SearchConfig) -> tuple[float, float, Words]:
    started = time.process_time()
    decoder = Decoder(graph, config)
    loaded = time.process_time()
    decoder.decode(inputs[0][:20])
    begun = time.process_time()
    words = [decoder.decode(matrix).words for matrix in inputs]
    return loaded - started, time.process_time() - begun, words


def ours_nbest(graph: Path, inputs: list[np.ndarray], config: SearchConfig) -> tuple[float, float, Words]:
    started = time.process_time()
    decoder = Decoder(graph, dataclasses.replace(config, nbest=300))
    loaded = time.process_time()
    decoder.decode_nbest(inputs[0][:20])
    begun = time.process_time()
    words = [decoder.decode_nbest(matrix)[1][0].words for matrix in inputs]
    return loaded - started, time.process_time() - begun, words


def bare(graph: Path, inputs: list[np.ndarray], config: SearchConfig) -> tuple[float, float, Words]:
    """The loop that one writes from kaldi_decoder's own example; matrices scaled beforehand."""
    started = time.process_time()
    names = read_words(graph / "words.txt")
    fst = kaldifst.StdVectorFst.read(str(graph / "HCLG.fst"))
    options = kaldi_decoder.FasterDecoderOptions(beam=config.beam, max_active=config.max_active,
                                                 min_active=config.min_active)
    scale = np.float32(config.acoustic_scale)
    decodables = [kaldi_decoder.DecodableCtc(matrix * scale) for matrix in inputs]
    loaded = time.process_time()
    words = []
    for decodable in decodables:
        search = kaldi_decoder.FasterDecoder(fst, options)
        search.decode(decodable)
        labels = kaldifst.get_linear_symbol_sequence(search.get_best_path()[1])[2]
        words.append(tuple(names[label] for label in labels))
    return loaded - started, time.process_time() - loaded, words


def k2(graph: Path, inputs: list[np.ndarray], config: SearchConfig) -> tuple[float, float, Words] | str:
    """k2's OnlineDenseIntersecter. Its tokens merge equal neighbours, so arcs without a word carry a separator."""
    try:
        import k2py
    except ImportError:
        return "k2py is not installed"
    started = time.process_time()
    names = read_words(graph / "words.txt")
    text = epsilon_free_text(FstArrays.read(graph / "HCLG.fst"), separator=len(names))
    if text is None:
        return f"the graph without input epsilons has more than {MAX_K2_ARCS:,} arcs (or two words on one)"
    made = k2py.CreateFsaVecFromStr(*text)
    loaded = time.process_time()
    words = []
    for matrix in inputs:
        # one column in front: label 0 is a symbol to k2, and no arc has it
        scores = np.pad(matrix * np.float32(config.acoustic_scale), ((0, 0), (1, 0))).astype(np.float32)
        search = k2py.OnlineDenseIntersecter(made["fsa"], made["aux_labels"], config.beam, 8.0, config.min_active,
                                             config.max_active)
        search.decode(scores, False)
        labels = [token.token_id for token in search.finish()[0][0]]
        words.append(tuple(names[label] for label in labels if 0 < label < len(names)))
    return loaded - started, time.process_time() - loaded, words


def epsilon_free_text(fst: FstArrays, separator: int) -> tuple[str, int] | None:
    """(k2's text form, final state); None where it is too large or an arc would need two words."""
    if fst.num_arcs > MAX_K2_ARCS:
        return None
    rows = list(zip(fst.ilabels.tolist(), fst.olabels.tolist(), fst.weights.tolist(), fst.nextstates.tolist(),
                    strict=True))
    offsets, final = fst.offsets.tolist(), len(fst.finals)
    lines: list[str] = []
    for source in range(final):
        reached = {(source, 0): 0.0}  # (state, word heard on the way) -> cost, over input epsilons alone
        stack = [(source, 0)]
        best_final = np.inf
        while stack:
            state, word = stack.pop()
            cost = reached[state, word]
            best_final = min(best_final, cost + float(fst.finals[state])) if word == 0 else best_final
            for ilabel, olabel, weight, target in rows[offsets[state]:offsets[state + 1]]:
                if word and olabel:
                    return None
                if ilabel:
                    lines.append(f"{source} {target} {ilabel} {olabel or word or separator} {-cost - weight}")
                elif cost + weight < reached.get((target, olabel or word), np.inf):
                    reached[target, olabel or word] = cost + weight
                    stack.append((target, olabel or word))
        if len(lines) > MAX_K2_ARCS:
            return None
        if best_final < np.inf:
            lines.append(f"{source} {final} -1 -1 {-best_final}")
    return "\n".join([*lines, str(final)]), final


def load(matrices: Path, limit: int) -> list[np.ndarray]:
    return [np.load(path, allow_pickle=False) for path in sorted(matrices.glob("*.npy"))[:limit]]


def made_up_graph(directory: Path, number: int) -> Path:
    """Words of 2 to 8 phones in a loop, three states a phone, unigram costs, optional silence."""
    random = np.random.default_rng(0)
    arcs: list[tuple[int, int, int, float, int]] = []
    states = 2

    def phone(source: int, name: int, word: int, cost: float) -> int:
        nonlocal states
        for state in range(3):
            label = 3 * name + state + 1
            arcs.append((source, label, word if state == 0 else 0, 0.7 + (cost if state == 0 else 0.0), states))
            arcs.append((states, label, 0, 0.7, states))
            source, states = states, states + 1
        return source

    arcs.append((0, 0, 0, 0.7, 1))
    arcs.append((phone(0, 0, 0, 0.7), 0, 0, 0.0, 1))
    for word in range(1, number + 1):
        state = 1
        for position, name in enumerate(random.integers(1, 41, size=random.integers(2, 9)).tolist()):
            state = phone(state, name, word if position == 0 else 0, np.log(number) if position == 0 else 0.0)
        arcs.append((state, 0, 0, 0.0, 0))
    finals = np.full(states, np.inf, np.float32)
    finals[:2] = 0.0
    FstArrays.from_arcs(0, finals, *(np.array(column) for column in zip(*arcs, strict=True))).write(
        directory / "HCLG.fst")
    (directory / "words.txt").write_text("<eps> 0\n" + "".join(f"word{i} {i}\n" for i in range(1, number + 1)))
    return directory


def made_up_matrices(graph: Path, directory: Path, number: int, frames: int = 1000) -> None:
    """Log-likelihoods of random paths through the graph, with noise that leaves some doubt."""
    directory.mkdir()
    fst = FstArrays.read(graph / "HCLG.fst")
    random = np.random.default_rng(1)
    for utterance in range(number):
        state = fst.start
        pdfs: list[int] = []
        while len(pdfs) < frames or not np.isfinite(fst.finals[state]):
            begin, end = fst.offsets[state:state + 2]
            likely = np.exp(-fst.weights[begin:end].astype(float))
            arc = begin + random.choice(end - begin, p=likely / likely.sum())
            if fst.ilabels[arc]:
                pdfs.append(int(fst.ilabels[arc]) - 1)
            state = fst.nextstates[arc]
        matrix = random.normal(0, 8, (len(pdfs), int(fst.ilabels.max())))
        matrix[np.arange(len(pdfs)), pdfs] += 20
        np.save(directory / f"{utterance:04d}.npy", matrix.astype(np.float32), allow_pickle=False)


if __name__ == "__main__":
    main()
