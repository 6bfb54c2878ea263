"""The converted graph beside HCLG.fst, so that it is made once: HCLG.k2.safetensors, with the digest of its HCLG."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asr_distill.decode.k2.graph import K2Graph, without_epsilons
from asr_distill.errors import UserError
from asr_distill.files import atomic_path, file_digest
from asr_distill.lang.fst_arrays import FstArrays

NAME = "HCLG.k2.safetensors"
FORM = 1  # raised when the conversion changes

log = logging.getLogger("asr_distill")


def load_graph(graph_dir: Path) -> K2Graph:
    """The graph without epsilons, from the cache where that fits HCLG.fst.

    A folder that cannot be written, or a link to one that was made elsewhere, gets no cache. Raises UserError where
    HCLG.fst is missing or damaged, and as without_epsilons.
    """
    source = graph_dir / "HCLG.fst"
    if not source.is_file():
        raise UserError(f"{source}: no such file; compile the graph first")
    identity = {"form": FORM, "hclg": file_digest(source)}
    kept = _read(graph_dir / NAME, identity)
    if kept is not None:
        return kept
    started = time.monotonic()
    fst = FstArrays.read(source)
    graph = without_epsilons(fst, str(source))
    log.info("%s: %d states, %d arcs; without epsilons, for k2: %d states, %d arcs, %.1f s", source, fst.num_states,
             fst.num_arcs, graph.states, len(graph.arcs), time.monotonic() - started)
    if not (graph_dir.is_symlink() or graph_dir.parent.is_symlink()):
        _write(graph_dir / NAME, graph, identity)
    return graph


def _read(path: Path, identity: dict[str, object]) -> K2Graph | None:
    """None where there is none, or one of another graph; a damaged one is made anew."""
    try:
        with safe_open(path, framework="numpy") as file:
            if json.loads(file.metadata()["identity"]) != identity:
                return None
            return K2Graph(*(file.get_tensor(name) for name in K2Graph._fields))
    except FileNotFoundError:
        return None
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        log.warning("%s: damaged (%s); it is made anew", path, error)
        return None


def _write(path: Path, graph: K2Graph, identity: dict[str, object]) -> None:
    try:
        with atomic_path(path) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in graph._asdict().items()}, temporary,
                      metadata={"identity": json.dumps(identity)})
    except (OSError, SafetensorError) as error:
        log.info("%s is not kept (%s): the graph will be converted again", path, error)
