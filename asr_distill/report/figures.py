"""Numbers as people read them, shared by the tables for files and for the terminal."""

from __future__ import annotations

from asr_distill.report.results import ErrorScores, SplitScores

ABSENT = "–"
SIGNIFICANT = 0.05


def count(value: int | None) -> str:
    """`6.82 M`, `84 k`, `512`."""
    if value is None:
        return ABSENT
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {letter}"
    return str(value)


def size(value: int | None) -> str:
    """Bytes: `27.3 MB` (powers of 1,000, as file managers and registries count)."""
    return ABSENT if value is None else count(value) + "B" if value >= 1000 else f"{value} B"


def number(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def wer(scores: SplitScores | ErrorScores | None) -> str:
    """`12.34 [11.20, 13.51]`, or the count of errors where the task has no words."""
    if isinstance(scores, ErrorScores):
        return f"{scores.errors} errors"
    if scores is None or scores.wer is None:
        return ABSENT
    return f"{scores.wer:.2f} [{scores.wer_low:.2f}, {scores.wer_high:.2f}]"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 20 s`, `4.1 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
