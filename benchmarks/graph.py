"""Build the decoding graph of a lexicon and an ARPA model; print seconds of every step, peak memory and size.

    python benchmarks/graph.py LEXICON ARPA [--out DIR]                    # monophones
    python benchmarks/graph.py LEXICON ARPA --senones 2000 --positions     # triphones under a random tree of that size
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numpy as np

from asr_distill.decode.graph import compile_hclg
from asr_distill.hmm.decision_tree import LEFT, PHONE, RIGHT, DecisionTree
from asr_distill.hmm.model import HmmModel, base_phone, monophone_model
from asr_distill.lang.lang import LangConfig, add_grammar, prepare_lang
from asr_distill.lang.lexicon import Lexicon

STATES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lexicon", type=Path)
    parser.add_argument("arpa", type=Path)
    parser.add_argument("--out", type=Path, help="keep the graph and the language directory here")
    parser.add_argument("--senones", type=int, default=0, help="about so many leaves; 0: monophones")
    parser.add_argument("--positions", action="store_true", help="phones that depend on their place in the word")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        measure(options.lexicon, options.arpa, options.out or Path(folder), options.senones, options.positions)


def measure(lexicon: Path, arpa: Path, out: Path, senones: int, positions: bool) -> None:
    wall, cpu = time.monotonic(), time.process_time()
    lang = prepare_lang(Lexicon.read(lexicon), out / "lang", LangConfig(position_dependent=positions))
    grammar = add_grammar(lang, arpa)
    print(f"L and G: {time.monotonic() - wall:.1f} s ({time.process_time() - cpu:.1f} s of CPU), {len(lang.phones)} "
          f"phones, {len(lang.words):,} symbols, {sum(grammar.ngrams.values()):,} n-grams, "
          f"{grammar.dropped_words:,} words dropped")
    hmm = monophone_model(lang.phones)
    if senones:
        hmm = HmmModel(lang.phones, (STATES,) * len(lang.phones), random_tree(lang.phones, senones))
    cpu = time.process_time()
    figures = compile_hclg(lang, hmm, out / "graph")
    print(f"HCLG: {figures['seconds']:.1f} s ({time.process_time() - cpu:.1f} s of CPU), {hmm.num_pdfs:,} pdfs, "
          f"peak {figures['peak_memory_bytes'] / 2**30:.2f} GiB, {figures['states']:,} states, "
          f"{figures['arcs']:,} arcs, {figures['bytes'] / 2**20:.1f} MiB")


def random_tree(phones: tuple[str, ...], leaves: int) -> DecisionTree:
    """Each state of each base phone split into equally many leaves by random questions: first states ask more for the
    left neighbour, last ones for the right, all sometimes for the place in the word.
    """
    random = np.random.default_rng(0)
    bases = [base_phone(phone) for phone in phones]
    names = sorted(set(bases))
    each = max(1, leaves // (STATES * len(names)))
    sets: list[frozenset[int]] = []
    nodes: list[tuple[int, int, int, int]] = []
    made = 0

    def question(place: int) -> int:
        if place == PHONE:
            kinds = tuple(random.choice(["_B", "_I", "_E", "_S"], 2, replace=False))
            sets.append(frozenset(i for i, phone in enumerate(phones, 1) if phone.endswith(kinds)))
        else:
            share = random.choice([0.15, 0.3, 0.5])
            chosen = {name for name in names if random.random() < share}
            sets.append(frozenset(i for i, base in enumerate(bases, 1) if base in chosen))
        return len(sets) - 1

    def grow(size: int, state: int) -> int:
        nonlocal made
        if size == 1:
            made += 1
            return -made
        odds = ([0.55, 0.1, 0.35], [0.42, 0.16, 0.42], [0.35, 0.1, 0.55])[state]
        place = int(random.choice([LEFT, PHONE, RIGHT], p=odds))
        index = len(nodes)
        nodes.append((0, 0, 0, 0))
        asked, left = question(place), int(random.integers(1, size))
        nodes[index] = (place, asked, grow(left, state), grow(size - left, state))
        return index

    roots = {name: tuple(grow(1 if name == "SIL" else each, state) for state in range(STATES)) for name in names}
    return DecisionTree(tuple(sets), tuple(nodes), tuple(roots[base] for base in bases))


if __name__ == "__main__":
    main()
