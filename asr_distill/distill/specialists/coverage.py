"""What specialists bring, by how many of them cover the correct senone (the paper's table 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.distill.specialists.model import GeneralistWithSpecialists
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment
from asr_distill.progress import Progress

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class CoverageRow:
    """Frames whose aligned senone is in the sets of `covering` specialists; None: all frames.

    Accuracies 0 to 1; difference = combined - generalist, low and high its 95 % interval, from a paired bootstrap over
    utterances.
    """

    covering: int | None
    frames: int
    generalist_correct: int
    combined_correct: int
    generalist_accuracy: float
    combined_accuracy: float
    relative_change: float | None  # difference / generalist_accuracy; None where that is 0
    difference: float
    difference_low: float
    difference_high: float


def coverage_table(generalist: PosteriorModel, combined: GeneralistWithSpecialists, store: FrameStore,
                   alignment: Alignment, utterances: Iterable[int] | None = None, *, resamples: int = RESAMPLES,
                   seed: int = 0, label: str = "specialists' coverage") -> list[CoverageRow]:
    """A row for each number of covering specialists that occurs, and one for all aligned frames.

    Raises UserError where the alignment is of another store or other senones, or no frame is aligned.
    """
    if len(alignment.pdf_ids) != store.num_frames or alignment.num_pdfs != combined.num_pdfs:
        raise UserError(f"{store.directory}: the alignment ({len(alignment.pdf_ids)} frames, {alignment.num_pdfs} "
                        f"pdfs) is not of this store ({store.num_frames} frames) and model ({combined.num_pdfs} pdfs): "
                        "align again")
    indices = list(range(len(store.utterances)) if utterances is None else utterances)
    coverage = combined.coverage
    classes = int(coverage.max()) + 1
    counts = np.zeros((len(indices), classes, 3))  # of each utterance and coverage: frames, right, combined right
    with Progress(label, len(indices), "utterances") as progress:
        for row, index in zip(counts, indices, strict=True):
            row[:] = _counts(generalist, combined, store, alignment, index, coverage, classes)
            progress.update()
    if not counts.sum():
        raise UserError(f"{store.directory}: no aligned frame to score: check the alignment")
    drawn = _resampled(counts, resamples, seed)
    rows = [_row(number, counts[:, number].sum(0), drawn[:, number])
            for number in range(classes) if counts[:, number, 0].any()]
    return [*rows, _row(None, counts.sum((0, 1)), drawn.sum(1))]


def coverage_text(rows: Sequence[CoverageRow]) -> str:
    """The rows as a text table, accuracies in percent."""
    lines = [f"{'covering':>8}  {'frames':>9}  {'generalist':>10}  {'combined':>8}  {'correct':>8}  {'relative':>8}  "
             f"difference ({100 * CONFIDENCE:.0f} %)"]
    for row in rows:
        relative = "-" if row.relative_change is None else f"{100 * row.relative_change:+.1f}%"
        lines.append(
            f"{'all' if row.covering is None else row.covering:>8}  {row.frames:>9,}  "
            f"{100 * row.generalist_accuracy:>9.2f}%  {100 * row.combined_accuracy:>7.2f}%  "
            f"{row.combined_correct - row.generalist_correct:>+8,}  {relative:>8}  "
            f"{100 * row.difference:+.2f} ({100 * row.difference_low:+.2f} to {100 * row.difference_high:+.2f})")
    return "\n".join(lines)


def _counts(generalist: PosteriorModel, combined: GeneralistWithSpecialists, store: FrameStore, alignment: Alignment,
            index: int, coverage: torch.Tensor, classes: int) -> np.ndarray:
    """One utterance: frames, those right under either model, int64 (classes, 3)."""
    pdf_ids = torch.as_tensor(alignment.pdf_ids[store.offsets[index]:store.offsets[index + 1]]).long()
    rows = (pdf_ids >= 0).nonzero().squeeze(1)
    if not len(rows):
        return np.zeros((classes, 3), np.int64)
    rows, pdf_ids = rows.to(combined.device), pdf_ids[rows].to(combined.device)
    features = store.features(index, combined.device)
    covering = coverage[pdf_ids]
    columns = [covering]
    for model in (generalist, combined):
        right = model.log_posteriors(features)[rows].argmax(1) == pdf_ids
        columns.append(covering[right])
    return torch.stack([torch.bincount(column, minlength=classes) for column in columns], 1).cpu().numpy()


def _resampled(counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of counts (utterances, classes, 3) over utterances drawn with replacement, (resamples, classes, 3)."""
    random, number = np.random.default_rng(seed), len(counts)
    drawn = np.empty((resamples, *counts.shape[1:]))
    step = max(1, (1 << 22) // number)  # resamples at once: bounded memory
    for first in range(0, resamples, step):
        times = random.multinomial(number, np.full(number, 1 / number), min(step, resamples - first))
        drawn[first:first + step] = np.tensordot(times, counts, 1)
    return drawn


def _row(covering: int | None, counts: np.ndarray, drawn: np.ndarray) -> CoverageRow:
    """counts (3,): frames, right, combined right; drawn (resamples, 3): the same of each resample."""
    frames, right, combined_right = (int(count) for count in counts)
    some = drawn[drawn[:, 0] > 0]  # few frames may be in none of the utterances drawn
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile((some[:, 2] - some[:, 1]) / some[:, 0], [tail, 100 - tail])
    gain = combined_right - right
    return CoverageRow(covering, frames, right, combined_right, right / frames, combined_right / frames,
                       gain / right if right else None, gain / frames, float(low), float(high))
