"""HCLG: the decoding graph, compiled from L, G and the HMM (Mohri, Pereira, Riley 2002; Kaldi's mkgraph.sh).

Phone-level steps (compose, determinize, minimize, context) are OpenFst's and Kaldi's; the HMM expansion,
removal of disambiguation symbols and self-loops are array arithmetic: seconds where the composition with H
takes minutes.
"""

from __future__ import annotations

import logging
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.decode.context import with_context
from asr_distill.decode.determinize import expand_determinized
from asr_distill.decode.expand import Chains, add_self_loops, drop_disambig, expand
from asr_distill.decode.minimize import minimized
from asr_distill.errors import UserError
from asr_distill.files import write_text
from asr_distill.hmm.model import HmmModel
from asr_distill.kaldi import kaldifst
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.lang import Lang

log = logging.getLogger("asr_distill")


@dataclass(frozen=True)
class GraphConfig:
    """Settings of the decoding graph."""

    self_loop_scale: float = 0.1  # on log transition probabilities (Kaldi's mkgraph.sh)

    def __post_init__(self) -> None:
        if self.self_loop_scale < 0:
            raise ValueError(f"self_loop_scale must not be negative, not {self.self_loop_scale}")


def compile_hclg(lang: Lang, hmm: HmmModel, out: Path, config: GraphConfig = GraphConfig()) -> dict[str, Any]:
    """Write out/HCLG.fst (OpenFst vector; input label = pdf + 1, output label = word id) and out/words.txt.

    Returns figures: states, arcs, bytes, seconds, peak_memory_bytes (of this process so far). Raises
    UserError where the language directory lacks G, or its phones are not those of the HMM.
    """
    begin = time.monotonic()
    arrays, chains = state_graph(lang, hmm, config)
    arrays = add_self_loops(arrays, chains)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "HCLG.fst"
    arrays.write(path)
    write_text(out / "words.txt", (lang.directory / "words.txt").read_text(encoding="utf-8"))
    return {"states": arrays.num_states, "arcs": arrays.num_arcs, "bytes": path.stat().st_size,
            "seconds": time.monotonic() - begin,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def state_graph(lang: Lang, hmm: HmmModel, config: GraphConfig = GraphConfig()) -> tuple[FstArrays, Chains]:
    """HCLG before its self-loops (`expand.add_self_loops` puts them on), input labels being those of the Chains.

    Raises UserError as compile_hclg.
    """
    if lang.phones != hmm.phones:
        raise UserError(f"{lang.directory}: its phones are not those of the HMM; prepare both from one lexicon")
    begin = time.monotonic()
    chains = Chains(hmm, config.self_loop_scale)
    arrays = _phone_graph(lang)
    _say(begin, "L o G determinized", arrays)
    if hmm.tree.context_width == 1:
        # Phones are their own context: minimize before the expansion, while the graph is small.
        arrays = minimized(drop_disambig(arrays, lang.disambig))
        arrays = expand(arrays, chains.of_phones())
    else:
        arrays, windows = with_context(minimized(arrays), len(lang.phones), len(lang.disambig))
        _say(begin, "context", arrays)
        arrays = expand_determinized(arrays, chains.of_windows(windows, len(lang.disambig)))
        _say(begin, "H determinized", arrays)
        arrays = minimized(drop_disambig(arrays, chains.disambig))
    _say(begin, "H expanded", arrays)
    return arrays, chains


def _phone_graph(lang: Lang) -> FstArrays:
    """Deterministic L o G over phones, with disambiguation symbols."""
    graph = kaldifst.StdVectorFst(kaldifst.compose(lang.fst("L_disambig"), lang.fst("G")))
    if graph.num_states == 0:
        raise UserError(f"{lang.directory}: lexicon and language model have no sentence in common")
    kaldifst.determinize_star(graph, use_log=True)
    return FstArrays.from_fst(graph)


def _say(begin: float, what: str, arrays: FstArrays) -> None:
    log.info("graph: %s, %d states, %d arcs, %.1f s", what, arrays.num_states, arrays.num_arcs,
             time.monotonic() - begin)
