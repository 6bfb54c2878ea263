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

from asr_distill.decode.expand import Chains, add_self_loops, drop_disambig, expand
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
    if lang.phones != hmm.phones:
        raise UserError(f"{lang.directory}: its phones are not those of the HMM; prepare both from one lexicon")
    begin = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    chains = Chains(hmm, config.self_loop_scale)
    graph = _phone_graph(lang)
    if hmm.tree.context_width == 1:
        # Phones are their own context: minimize before the expansion, while the graph is small.
        arrays = FstArrays.from_fst(graph)
        del graph
        arrays = _minimized(drop_disambig(arrays, lang.disambig))
        _say(begin, "LG minimized, without disambiguation symbols", arrays)
        arrays = expand(arrays, chains.of_phones())
    else:
        arrays = _with_context(graph, lang, hmm, chains, begin)
    _say(begin, "H expanded", arrays)
    arrays = add_self_loops(arrays, chains)
    path = out / "HCLG.fst"
    arrays.write(path)
    write_text(out / "words.txt", (lang.directory / "words.txt").read_text(encoding="utf-8"))
    return {"states": arrays.num_states, "arcs": arrays.num_arcs, "bytes": path.stat().st_size,
            "seconds": time.monotonic() - begin,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _phone_graph(lang: Lang) -> kaldifst.StdVectorFst:
    """Deterministic L o G over phones, with disambiguation symbols."""
    begin = time.monotonic()
    graph = kaldifst.StdVectorFst(kaldifst.compose(lang.fst("L_disambig"), lang.fst("G")))
    if graph.num_states == 0:
        raise UserError(f"{lang.directory}: lexicon and language model have no sentence in common")
    log.info("graph: L o G, %d states, %.1f s", graph.num_states, time.monotonic() - begin)
    kaldifst.determinize_star(graph, use_log=True)
    log.info("graph: determinized, %d states, %.1f s", graph.num_states, time.monotonic() - begin)
    return graph


def _with_context(graph: kaldifst.StdVectorFst, lang: Lang, hmm: HmmModel, chains: Chains,
                  begin: float) -> FstArrays:
    """C o L o G expanded to HMM states, determinized and minimized there (triphones share first states)."""
    kaldifst.minimize_encoded(graph)
    width = hmm.tree.context_width
    context, windows = kaldifst.compose_context(list(lang.disambig), width, width // 2, graph)
    del graph
    arrays = FstArrays.from_fst(context)
    del context
    _say(begin, "context", arrays)
    arrays = expand(arrays, chains.of_windows(windows))
    fst = arrays.to_fst()
    del arrays
    kaldifst.determinize_star(fst, use_log=True)
    return _minimized(drop_disambig(FstArrays.from_fst(fst), chains.disambig))


def _minimized(arrays: FstArrays) -> FstArrays:
    fst = arrays.to_fst()
    kaldifst.connect(fst)
    kaldifst.minimize_encoded(fst)
    return FstArrays.from_fst(fst)


def _say(begin: float, what: str, arrays: FstArrays) -> None:
    log.info("graph: %s, %d states, %d arcs, %.1f s", what, arrays.num_states, arrays.num_arcs,
             time.monotonic() - begin)
