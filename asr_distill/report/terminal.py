"""The main table for the terminal: at most 100 columns, a block a split."""

from __future__ import annotations

import textwrap

from asr_distill.report.figures import count, number, size, wer
from asr_distill.report.results import Results
from asr_distill.report.tables import statements

WIDTH = 100
HEADER = ("system", "role", "params", "size", "frame acc.", "x-ent", "WER % [95 %]", "RTF")


def terminal_table(results: Results, width: int = WIDTH) -> str:
    """Plain text; names that do not fit are shortened, figures never are."""
    blocks = [block for split in results.scored_splits() if (block := _block(results, split, width))]
    sentences = [_wrap(sentence, width) for sentence in statements(results)]
    return "\n\n".join([*blocks, *(["\n".join(sentences)] if sentences else [])])


def _block(results: Results, split: str, width: int) -> str:
    rows = [list(HEADER)]
    for system in results.systems:
        if scores := system.splits.get(split):
            rows.append([system.name, system.role, count(system.parameters), size(system.bytes),
                         number(scores.frame_accuracy, 2), number(scores.cross_entropy, 3), wer(scores),
                         number(scores.rtf, 3)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    spare = width - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(spare, 8))
    lines = [_line(row, widths) for row in rows]
    rule = "-" * len(lines[0])
    data = results.data[split]
    facts = [f"{data.hours:.2f} h" if data.hours is not None else "", f"{data.utterances:,} utterances",
             f"{data.words:,} words" if data.words is not None else ""]
    title = f"{results.recipe}: {split} ({', '.join(fact for fact in facts if fact)})"
    return "\n".join([title[:width], rule, lines[0], rule, *lines[1:], rule])


def _line(row: list[str], widths: list[int]) -> str:
    name = row[0] if len(row[0]) <= widths[0] else row[0][:widths[0] - 1] + "…"
    cells = [cell.ljust(width) if column < 2 else cell.rjust(width)
             for column, (cell, width) in enumerate(zip([name, *row[1:]], widths, strict=True))]
    return "  ".join(cells)


def _wrap(sentence: str, width: int) -> str:
    return textwrap.fill(sentence, width, initial_indent="* ", subsequent_indent="  ")
