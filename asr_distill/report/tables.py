"""RESULTS.md: the same results for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asr_distill.files import write_text
from asr_distill.report.figures import ABSENT, count, duration, number, p_value, size, wer
from asr_distill.report.results import ErrorScores, Results, SplitScores
from asr_distill.report.sentences import comparison_sentence, export_sentences, gain_sentences

Scores = SplitScores | ErrorScores | None
Rows = tuple[list[str], list[list[str]]]  # header, lines
COLUMNS: tuple[tuple[str, Callable[[Scores], str]], ...] = (  # of one split
    ("frame accuracy %", lambda scores: number(scores.frame_accuracy if scores else None, 2)),
    ("cross-entropy", lambda scores: number(scores.cross_entropy if scores else None, 3)),
    ("WER % [95 %]", wer),
    ("RTF", lambda scores: number(scores.rtf if scores else None, 3)),
)
WORDLESS = {"frame accuracy %": "accuracy %", "WER % [95 %]": "errors"}  # where a task has no words


def write_markdown(results: Results, path: Path, *, command: str = "", plots: dict[str, str] | None = None) -> None:
    """Write RESULTS.md. `command` makes these results again; `plots` maps a title to a file beside `path`."""
    write_text(path, markdown(results, command=command, plots=plots))


def markdown(results: Results, *, command: str = "", plots: dict[str, str] | None = None) -> str:
    """The whole page: main table, what it says, where it comes from."""
    parts = [f"# Results: {results.recipe}", main_table(results), legend(results)]
    if findings := [f"- {sentence}" for sentence in statements(results)]:
        parts += ["## What the figures say", "\n".join(findings)]
    if results.comparisons:
        parts += ["## Comparisons", comparison_table(results)]
    if any(_errors(system.splits.get(split)) for system in results.systems for split in results.data):
        parts += ["## Errors by kind", error_table(results)]
    if plots:
        parts += ["## Plots", "\n\n".join(f"![{title}]({file})" for title, file in plots.items())]
    parts += ["## How it was made", provenance(results, command), "## Data", data_table(results)]
    if results.stages:
        parts += ["## Stages", stage_table(results)]
    return "\n\n".join(parts) + "\n"


def main_table(results: Results) -> str:
    return table(*main_rows(results), left=2)


def main_rows(results: Results) -> Rows:
    """System, role, parameters, size and, for every split, the columns that hold any figure."""
    splits = results.scored_splits()
    header = ["system", "role", "parameters", "size"]
    columns: list[tuple[str, Callable[[Scores], str]]] = []
    for split in splits:
        for title, show in COLUMNS:
            if any(show(system.splits.get(split)) != ABSENT for system in results.systems):
                title = WORDLESS.get(title, title) if _wordless(results) else title
                columns.append((split, show))
                header.append(f"{split}: {title}" if len(splits) > 1 else title)
    rows = [[system.name, system.role, count(system.parameters), size(system.bytes),
             *(show(system.splits.get(split)) for split, show in columns)] for system in results.systems]
    return header, rows


def legend(results: Results) -> str:
    """What the columns mean, and how many targets there are."""
    if _wordless(results):
        return "Accuracy in percent of the examples; cross-entropy in nats an example; errors: examples that are wrong."
    targets = sorted({system.targets for system in results.systems})
    splits = results.scored_splits()
    where = f" Scored on {splits[0]}." if len(splits) == 1 else ""
    return ("Frame accuracy against the forced alignment; cross-entropy in nats a frame; WER with its 95 % bootstrap "
            "interval; RTF: seconds of work a second of audio. "
            f"Targets: {' or '.join(f'{value:,}' for value in targets)} pdfs.{where}")


def statements(results: Results) -> list[str]:
    """Sentences about students, what was exported of them, and every comparison."""
    sentences = [sentence for student in results.with_role("student")
                 for sentence in gain_sentences(results, student)]
    sentences += [sentence for exported in results.with_role("export")
                  for sentence in export_sentences(results, exported)]
    return sentences + [comparison_sentence(results, comparison) for comparison in results.comparisons]


def comparison_table(results: Results) -> str:
    return table(*comparison_rows(results), left=3)


def comparison_rows(results: Results) -> Rows:
    """Every paired test."""
    rows = [[item.a, item.b, item.split, f"{item.wer_difference:+.2f}", p_value(item.p).removeprefix("p ")
             .removeprefix("= ")] for item in results.comparisons]
    return ["a", "b", "split", "WER(a) - WER(b)", "p (paired)"], rows


def error_table(results: Results) -> str:
    return table(*error_rows(results), left=2)


def error_rows(results: Results) -> Rows:
    """Word errors by kind, of every system that has any on a split; no lines where there are no words."""
    rows = []
    for split in results.scored_splits():
        for system in results.systems:
            if row := _errors(system.splits.get(split)):
                rows.append([system.name, split, *row])
    return ["system", "split", "substitutions", "insertions", "deletions", "words"], rows


def provenance(results: Results, command: str) -> str:
    """Command, seeds, device, date and versions."""
    lines = [f"- Command: `{command}`"] if command else []
    lines += [f"- Seeds: {', '.join(map(str, results.seeds)) or ABSENT}",
              f"- Device: {results.device}",
              f"- Finished: {results.finished}, after {duration(results.seconds)}",
              "- Versions: " + ", ".join(f"{name} {version}" for name, version in results.versions.items())]
    return "\n".join(lines)


def data_table(results: Results) -> str:
    return table(*data_rows(results), left=1)


def data_rows(results: Results) -> Rows:
    """Every split; what the language models think of it where that was measured."""
    header = ["split", "hours", "utterances", "words", "speakers"]
    rows = [[split, number(data.hours, 2), f"{data.utterances:,}", _whole(data.words), _whole(data.speakers)]
            for split, data in results.data.items()]
    for title, values in (("unknown words %", [data.unknown_rate for data in results.data.values()]),
                          ("perplexity", [data.perplexity for data in results.data.values()]),
                          ("perplexity, large model", [data.large_perplexity for data in results.data.values()])):
        if any(value is not None for value in values):
            header.append(title)
            for row, value in zip(rows, values, strict=True):
                row.append(number(value, 2 if "unknown" in title else 1))
    return header, rows


def stage_table(results: Results) -> str:
    """Seconds of every stage (a resumed one's attempts added up)."""
    return table(["stage", "time"], [[name, duration(seconds)] for name, seconds in results.stages.items()], left=1)


def table(header: list[str], rows: list[list[str]], *, left: int) -> str:
    """A Markdown table that is also readable as text: the first `left` columns to the left, the rest right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [cell.ljust(width) if column < left else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def _errors(scores: Scores) -> list[str]:
    if not isinstance(scores, SplitScores) or scores.wer is None:
        return []
    return [_whole(value) for value in (scores.substitutions, scores.insertions, scores.deletions, scores.words)]


def _wordless(results: Results) -> bool:
    scores = [item for system in results.systems for item in system.splits.values()]
    return bool(scores) and all(isinstance(item, ErrorScores) for item in scores)


def _whole(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"

