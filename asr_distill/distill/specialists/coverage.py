"""What specialists bring, by how many of them cover the correct senone (the paper's table 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.together import groups, posteriors_together
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment
from asr_distill.progress import Progress

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class CoverageRow:
    """Frames whose aligned senone is in the sets of `covering` specialists; None: all frames.

    Accuracies 0 to 1; difference = system - reference, low and high its 95 % interval, from a paired bootstrap over
    utterances; speaker_low and speaker_high the same over speakers, whose errors go together.
    """

    covering: int | None
    frames: int
    reference_correct: int
    system_correct: int
    reference_accuracy: float
    system_accuracy: float
    relative_change: float | None  # difference / reference_accuracy; None where that is 0
    difference: float
    difference_low: float
    difference_high: float
    speaker_low: float
    speaker_high: float


@dataclass(frozen=True)
class CoverageCounts:
    """Frames of each utterance by how many specialists cover their senone, and how many each model has right."""

    models: tuple[str, ...]
    counts: np.ndarray  # float64 (utterances, classes, 1 + models): frames, then those right under each model
    speakers: tuple[str, ...]  # of the utterances

    def table(self, reference: str, system: str, *, resamples: int = RESAMPLES, seed: int = 0) -> list[CoverageRow]:
        """`system` against `reference`: a row for each number of specialists that occurs, and one for all frames."""
        columns = [0, 1 + self.models.index(reference), 1 + self.models.index(system)]
        counts = self.counts[:, :, columns]
        by_speaker = np.zeros((len(set(self.speakers)), *counts.shape[1:]))
        np.add.at(by_speaker, np.unique(self.speakers, return_inverse=True)[1], counts)
        drawn = [_resampled(blocks, resamples, seed) for blocks in (counts, by_speaker)]
        rows = [_row(number, counts[:, number].sum(0), *(sums[:, number] for sums in drawn))
                for number in range(counts.shape[1]) if counts[:, number, 0].any()]
        return [*rows, _row(None, counts.sum((0, 1)), *(sums.sum(1) for sums in drawn))]


def coverage_counts(models: Mapping[str, PosteriorModel], coverage: torch.Tensor, store: FrameStore,
                    alignment: Alignment, utterances: Iterable[int] | None = None, *,
                    label: str = "specialists' coverage") -> CoverageCounts:
    """One pass over the aligned frames of the store's utterances (all, or those of the given indices).

    coverage: how many specialists' sets each senone is in, int64 (pdfs,). Raises UserError where the alignment is of
    another store or other senones, or no frame is aligned.
    """
    pdfs = len(coverage)
    if len(alignment.pdf_ids) != store.num_frames or alignment.num_pdfs != pdfs:
        raise UserError(f"{store.directory}: the alignment ({len(alignment.pdf_ids)} frames, {alignment.num_pdfs} "
                        f"pdfs) is not of this store ({store.num_frames} frames) and model ({pdfs} pdfs): align again")
    indices = list(range(len(store.utterances)) if utterances is None else utterances)
    coverage = coverage.cpu()
    counts = np.zeros((len(indices), int(coverage.max()) + 1, 1 + len(models)))
    lengths = [int(store.offsets[index + 1] - store.offsets[index]) for index in indices]
    device = next(iter(models.values())).device
    with Progress(label, len(indices), "utterances") as progress:
        for group in groups(lengths, device):
            best = [posteriors_together(model, [store.features(indices[at], model.device) for at in group]).argmax(1)
                    .cpu().split(lengths[group.start:group.stop]) for model in models.values()]
            for number, at in enumerate(group):
                counts[at] = _counts([each[number] for each in best], store, alignment, indices[at], coverage,
                                     counts.shape[1])
            progress.update(len(group))
    if not counts.sum():
        raise UserError(f"{store.directory}: no aligned frame to score: check the alignment")
    return CoverageCounts(tuple(models), counts, tuple(store.utterances[index].speaker for index in indices))


def coverage_text(rows: Sequence[CoverageRow], reference: str = "generalist", system: str = "combined") -> str:
    """The rows as a text table, accuracies in percent."""
    wide, broad = max(8, len(reference)), max(8, len(system))
    lines = [f"{'covering':>8}  {'frames':>9}  {reference:>{wide}}  {system:>{broad}}  {'correct':>8}  "
             f"{'relative':>8}  difference ({100 * CONFIDENCE:.0f} %)"]
    for row in rows:
        relative = "-" if row.relative_change is None else f"{100 * row.relative_change:+.1f}%"
        lines.append(
            f"{'all' if row.covering is None else row.covering:>8}  {row.frames:>9,}  "
            f"{100 * row.reference_accuracy:>{wide - 1}.2f}%  {100 * row.system_accuracy:>{broad - 1}.2f}%  "
            f"{row.system_correct - row.reference_correct:>+8,}  {relative:>8}  "
            f"{100 * row.difference:+.2f} ({100 * row.difference_low:+.2f} to {100 * row.difference_high:+.2f})")
    return "\n".join(lines)


def _counts(best: Sequence[torch.Tensor], store: FrameStore, alignment: Alignment, index: int, coverage: torch.Tensor,
            classes: int) -> np.ndarray:
    """One utterance, from each model's best senones int64 (frames,): frames, those right, (classes, 1 + models)."""
    pdf_ids = torch.as_tensor(alignment.pdf_ids[store.offsets[index]:store.offsets[index + 1]]).long()
    aligned = pdf_ids >= 0
    covering = coverage[pdf_ids[aligned]]
    columns = [covering, *(covering[(senones == pdf_ids)[aligned]] for senones in best)]
    return torch.stack([torch.bincount(column, minlength=classes) for column in columns], 1).numpy()


def _resampled(counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of counts (blocks, classes, 3) over blocks drawn with replacement, (resamples, classes, 3)."""
    random, number = np.random.default_rng(seed), len(counts)
    drawn = np.empty((resamples, *counts.shape[1:]))
    step = max(1, (1 << 22) // number)  # resamples at once: bounded memory
    for first in range(0, resamples, step):
        times = random.multinomial(number, np.full(number, 1 / number), min(step, resamples - first))
        drawn[first:first + step] = np.tensordot(times, counts, 1)
    return drawn


def _row(covering: int | None, counts: np.ndarray, by_utterance: np.ndarray, by_speaker: np.ndarray) -> CoverageRow:
    """counts (3,): frames, right, right under the system; the others (resamples, 3): the same of each resample."""
    frames, right, system_right = (int(count) for count in counts)
    gain = system_right - right
    return CoverageRow(covering, frames, right, system_right, right / frames, system_right / frames,
                       gain / right if right else None, gain / frames, *_interval(by_utterance), *_interval(by_speaker))


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    some = drawn[drawn[:, 0] > 0]  # few frames may be in none of the blocks drawn
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile((some[:, 2] - some[:, 1]) / some[:, 0], [tail, 100 - tail])
    return float(low), float(high)
