"""Build the monophone decoding graph of a lexicon and an ARPA model; print seconds, memory and size.

    python benchmarks/graph.py LEXICON ARPA [--out DIR]
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

from asr_distill.decode.graph import compile_hclg
from asr_distill.hmm.model import monophone_model
from asr_distill.lang.lang import add_grammar, prepare_lang
from asr_distill.lang.lexicon import Lexicon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lexicon", type=Path)
    parser.add_argument("arpa", type=Path)
    parser.add_argument("--out", type=Path, help="keep the graph and the language directory here")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        measure(options.lexicon, options.arpa, options.out or Path(folder))


def measure(lexicon: Path, arpa: Path, out: Path) -> None:
    wall, cpu = time.monotonic(), time.process_time()
    lang = prepare_lang(Lexicon.read(lexicon), out / "lang")
    grammar = add_grammar(lang, arpa)
    print(f"L and G: {time.monotonic() - wall:.1f} s ({time.process_time() - cpu:.1f} s of CPU), "
          f"{len(lang.words):,} symbols, {sum(grammar.ngrams.values()):,} n-grams, "
          f"{grammar.dropped_words:,} words dropped")
    cpu = time.process_time()
    figures = compile_hclg(lang, monophone_model(lang.phones), out / "graph")
    print(f"HCLG: {figures['seconds']:.1f} s ({time.process_time() - cpu:.1f} s of CPU), "
          f"peak {figures['peak_memory_bytes'] / 2**30:.2f} GiB, {figures['states']:,} states, "
          f"{figures['arcs']:,} arcs, {figures['bytes'] / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
