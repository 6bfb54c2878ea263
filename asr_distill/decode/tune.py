"""Choose the acoustic scale and the insertion penalty on a tuning part, whose word error rate is never reported.

A walk over a small grid: decode at the point nearest the given settings, then at its neighbours, and go where the word
error rate falls, until no neighbour is better. Usually 6 to 8 of the grid's points are decoded. Every point is a real
search (no rescoring of lattices), and the log-likelihoods are computed once for all of them.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_distill.decode.score import error_counts, texts_of
from asr_distill.decode.search import (
    ModelLikelihoods,
    SearchConfig,
    SearchPool,
    decode_likelihoods,
    decoding_figures,
)
from asr_distill.errors import UserError
from asr_distill.files import read_array, write_array, write_json

if TYPE_CHECKING:
    import torch

    from asr_distill.emission import EmissionModel
    from asr_distill.features.store import FrameStore

Cell = tuple[int, int]  # (index of the scale, index of the penalty)


@dataclass(frozen=True)
class TuneConfig:
    """The grid, how many utterances are decoded (spread evenly over those given), and the beam (None: the search's)."""

    acoustic_scales: tuple[float, ...] = (0.04, 0.05, 0.063, 0.08, 0.1, 0.125, 0.16, 0.2, 0.25, 0.32)
    insertion_penalties: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
    utterances: int = 100
    beam: float | None = None

    def __post_init__(self) -> None:
        for name in ("acoustic_scales", "insertion_penalties"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"{name} must rise and not be empty, not {values}")
        if self.acoustic_scales[0] <= 0 or self.utterances < 1 or (self.beam is not None and self.beam <= 0):
            raise ValueError("acoustic_scales, utterances and beam must be above 0")


@dataclass(frozen=True)
class Tuned:
    """The settings chosen, and every point decoded: {"acoustic_scale", "insertion_penalty", "wer", "rtf_search"}."""

    search: SearchConfig
    figures: dict[str, Any]


def tune(emission: EmissionModel, store: FrameStore, references: Mapping[str, Sequence[str]], graph_dir: Path,
         search: SearchConfig, config: TuneConfig, *, work: Path, workers: int = 1, device: torch.device,
         utterances: Sequence[int] | None = None, label: str = "tune", pool: SearchPool | None = None) -> Tuned:
    """`search` with the best acoustic scale and insertion penalty for `utterances` (indices; None: all of the store).

    Points already decoded in `work` are kept, so a killed run goes on. Raises UserError as `decode_store`, and for
    an utterance without a reference.
    """
    chosen = spread(range(len(store.utterances)) if utterances is None else utterances, config.utterances)
    ids = [store.utterances[index].id for index in chosen]
    unknown = [id for id in ids if id not in references]
    if unknown:
        raise UserError(f"tuning: no reference for {len(unknown)} utterances, for example {unknown[0]}")
    wanted = {id: references[id] for id in ids}
    words = sum(len(spoken) for spoken in wanted.values())
    if not words:
        raise UserError("tuning: the references hold no words")
    likelihoods = _Kept(ModelLikelihoods(emission, store, device), work / "log_likelihoods")

    def word_error_rate(cell: Cell) -> dict[str, float]:
        scale, penalty = config.acoustic_scales[cell[0]], config.insertion_penalties[cell[1]]
        point = dataclasses.replace(search, acoustic_scale=scale, insertion_penalty=penalty,
                                    beam=config.beam or search.beam, nbest=0)
        hypotheses = decode_likelihoods(likelihoods, store, graph_dir, point, work=work / f"{scale:g}_{penalty:g}",
                                        workers=workers, utterances=chosen, label=f"{label} {scale:g} {penalty:g}",
                                        pool=pool)
        errors = int(error_counts(wanted, texts_of(hypotheses)).sum())
        return {"acoustic_scale": scale, "insertion_penalty": penalty, "wer": 100 * errors / words,
                "rtf_search": decoding_figures(hypotheses)["rtf_search"]}

    start = (_nearest(config.acoustic_scales, search.acoustic_scale, math.log),
             _nearest(config.insertion_penalties, search.insertion_penalty, float))
    shape = (len(config.acoustic_scales), len(config.insertion_penalties))
    best, grid = walk(word_error_rate, start, shape)
    figures = {"utterances": len(chosen), "words": words, "best": grid[best], "grid": list(grid.values()),
               "at_edge": best[0] in (0, shape[0] - 1)}
    write_json(work / "figures.json", figures)
    shutil.rmtree(work / "log_likelihoods", ignore_errors=True)
    return Tuned(dataclasses.replace(search, acoustic_scale=grid[best]["acoustic_scale"],
                                     insertion_penalty=grid[best]["insertion_penalty"]), figures)


def walk(evaluate: Callable[[Cell], dict[str, float]], start: Cell, shape: tuple[int, int],
         ) -> tuple[Cell, dict[Cell, dict[str, float]]]:
    """Descent of "wer" over grid neighbours: (lowest cell found, every cell evaluated). Ties stay."""
    seen = {start: evaluate(start)}
    here = start
    while True:
        before = here
        for axis in (0, 1):  # the scale first: it moves the error rate most
            here = _descend(evaluate, here, axis, shape, seen)
        if here == before:
            return here, seen


def spread(indices: Sequence[int], number: int) -> list[int]:
    """`number` of the indices, evenly spread (all, where there are fewer)."""
    if len(indices) <= number:
        return list(indices)
    return [indices[place] for place in np.linspace(0, len(indices) - 1, number).round().astype(int)]


def _descend(evaluate: Callable[[Cell], dict[str, float]], here: Cell, axis: int, shape: tuple[int, int],
             seen: dict[Cell, dict[str, float]]) -> Cell:
    """Go along one axis as long as a neighbour is better."""
    while True:
        along = [cell for cell in _neighbours(here, shape) if cell[1 - axis] == here[1 - axis]]
        for cell in along:
            if cell not in seen:
                seen[cell] = evaluate(cell)
        best = min([here, *along], key=lambda cell: seen[cell]["wer"])
        if best == here:
            return here
        here = best


def _neighbours(cell: Cell, shape: tuple[int, int]) -> Iterator[Cell]:
    row, column = cell
    for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        if 0 <= near[0] < shape[0] and 0 <= near[1] < shape[1]:
            yield near


def _nearest(values: Sequence[float], wanted: float, measure: Callable[[float], float]) -> int:
    return min(range(len(values)), key=lambda index: abs(measure(values[index]) - measure(wanted)))


class _Kept:
    """Log-likelihoods by utterance, computed once and kept on disk. It can be sent to another process."""

    def __init__(self, likelihoods: ModelLikelihoods, folder: Path):
        self.likelihoods, self.folder = likelihoods, folder

    def __call__(self, index: int) -> np.ndarray:
        path = self.folder / f"{index}.npy"
        if not path.exists():
            write_array(path, self.likelihoods(index))
        return read_array(path)
