r"""Both backends of the search on the same log-likelihoods: word error rate, oracle of the n best, speed, memory.

    python benchmarks/k2_backend.py --graph E/11_graph/tri3b --model E/19_student/student \
                                    --frames E/02_features/dev_clean_2

RTF is seconds of the search per second of audio: on a CPU of one core, on a GPU by the clock. Without k2 the row of
the compiled search and the size of the converted graph are printed. `--no-convert` leaves the latter out.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import kaldialign
import torch

from asr_distill.acoustic.model import AcousticModel
from asr_distill.command import guarded
from asr_distill.decode.decoder import Hypothesis, NbestPath, SearchConfig
from asr_distill.decode.k2.graph import without_epsilons
from asr_distill.decode.k2.pool import K2Pool
from asr_distill.decode.search import FRAME_SECONDS, Job, SearchPool
from asr_distill.decode.tune import spread
from asr_distill.device import device_of
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore
from asr_distill.k2fsa import k2_module
from asr_distill.lang.fst_arrays import FstArrays

Words = tuple[str, ...]
Found = dict[str, tuple[Hypothesis, list[NbestPath]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, required=True, help="directory with HCLG.fst and words.txt")
    parser.add_argument("--model", type=Path, required=True, help="a trained network")
    parser.add_argument("--frames", type=Path, required=True, help="frame store whose words are the reference")
    parser.add_argument("--utterances", type=int, default=100, help="spread evenly over the store")
    parser.add_argument("--beam", type=float, default=13.0)
    parser.add_argument("--max-active", type=int, default=7000)
    parser.add_argument("--acoustic-scale", type=float, default=0.1)
    parser.add_argument("--insertion-penalty", type=float, default=0.0)
    parser.add_argument("--paths", type=int, default=200, help="n of the n best")
    parser.add_argument("--device", default="cpu", help="of k2 and the network")
    parser.add_argument("--no-convert", action="store_true")
    return guarded(run, parser.parse_args())


def run(args: argparse.Namespace) -> None:
    device = device_of(args.device)
    torch.set_num_threads(1)
    config = SearchConfig(args.beam, args.max_active, acoustic_scale=args.acoustic_scale,
                          insertion_penalty=args.insertion_penalty)
    store, model = FrameStore(args.frames), AcousticModel.load(args.model, device)
    chosen = spread(range(len(store.utterances)), args.utterances)
    jobs = [Job(store.utterances[i].id, model.log_likelihoods(store.features(i, device)).float().cpu().numpy(), 0.0)
            for i in chosen]
    references = {store.utterances[i].id: store.utterances[i].words for i in chosen}
    audio = sum(len(job.log_likelihoods) for job in jobs) * FRAME_SECONDS
    print(f"{len(jobs)} utterances, {audio:.0f} s, {sum(map(len, references.values()))} words; {config}")
    if not args.no_convert:
        converted(args.graph)
    compare(args.graph, jobs, references, config, args.paths, device, audio)


def converted(graph: Path) -> None:
    """Sizes of HCLG and of what k2 gets."""
    fst = FstArrays.read(graph / "HCLG.fst")
    started = time.process_time()
    made = without_epsilons(fst)
    seconds = time.process_time() - started
    on_device = len(made.arcs) * (16 + 16) + made.states * 4  # arcs, their places, lengths and two copies of scores
    print(f"HCLG: {fst.num_states:,} states, {fst.num_arcs:,} arcs ({int((fst.ilabels == 0).sum()):,} of epsilons), "
          f"{(graph / 'HCLG.fst').stat().st_size / 2**20:.0f} MiB; without epsilons {made.states:,} states, "
          f"{len(made.arcs):,} arcs, {sum(array.nbytes for array in made) / 2**20:.0f} MiB as kept, "
          f"{on_device / 2**20:.0f} MiB on the device, {seconds:.1f} s; most words on one arc: {made.lengths.max()}")


def compare(graph: Path, jobs: list[Job], references: dict[str, Words], config: SearchConfig, paths: int,
            device: torch.device, audio: float) -> None:
    pools: list[SearchPool] = [SearchPool(1)]
    try:
        k2_module()
        pools.append(K2Pool(device))
    except UserError as error:
        print(error)
    total = sum(map(len, references.values()))
    print(f"{'backend':10} {'WER':>7} {'RTF':>8} {'oracle':>7} {'RTF, n best':>12}  same words as the first")
    first: Found | None = None
    for pool in pools:
        with pool:
            list(pool.search(graph, config, iter([Job("", jobs[0].log_likelihoods[:30], 0.0)])))  # compiled, loaded
            best = searched(pool, graph, config, jobs)
            lists = searched(pool, graph, dataclasses.replace(config, nbest=paths), jobs)
        first = first or best
        wrong = sum(errors(references[id], heard.words) for id, (heard, _) in best.items())
        least = sum(min([errors(references[id], path.words) for path in nbest] or [len(references[id])])
                    for id, (_, nbest) in lists.items())
        rates = [sum(heard.seconds for heard, _ in found.values()) / audio for found in (best, lists)]
        same = sum(best[id][0].words == first[id][0].words for id in best)
        print(f"{pool.backend:10} {100 * wrong / total:7.2f} {rates[0]:8.4f} {100 * least / total:7.2f} "
              f"{rates[1]:12.4f}  {same} of {len(jobs)}")


def searched(pool: SearchPool, graph: Path, config: SearchConfig, jobs: list[Job]) -> Found:
    return {found[0].id: found for found in pool.search(graph, config, iter(jobs))}


def errors(reference: Words, words: Words) -> int:
    return int(kaldialign.edit_distance(list(reference), list(words))["total"])


if __name__ == "__main__":
    sys.exit(main())
