"""study.json, study.csv and study.md: the same results for programs, spreadsheets and people."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_distill.export.versions import package_versions
from asr_distill.files import write_json, write_text
from asr_distill.report.figures import ABSENT, count, p_value
from asr_distill.report.tables import table
from asr_distill.study.grid import Study, short_names, value_text
from asr_distill.study.summary import PointResults, Row, Spread, merged

COLUMNS: tuple[tuple[str, str, int], ...] = (  # measure, title, digits
    ("train_accuracy", "train acc. %", 2), ("heldout_accuracy", "held-out acc. %", 2),
    ("frame_accuracy", "frame acc. %", 2), ("cross_entropy", "cross-entropy", 3), ("wer", "WER %", 2),
    ("errors", "errors", 1), ("gain_frame_accuracy", "gain kept (frames) %", 0), ("gain_wer", "gain kept (WER) %", 0),
    ("recovered", "recovered %", 0))
CSV_FIGURES = ("frame_accuracy", "cross_entropy", "train_accuracy", "heldout_accuracy", "wer", "wer_low", "wer_high",
               "errors", "rtf")


def write_tables(study: Study, points: Sequence[PointResults], rows: Sequence[Row], failed: Mapping[str, str],
                 folder: Path, *, plots: Sequence[str], device: str, command: str) -> None:
    """Write the three files into `folder`. `failed`: label -> error; other points without results are not done yet."""
    finished = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    write_text(folder / "study.csv", _csv(study, points))
    write_text(folder / "study.md", markdown(study, points, rows, failed, plots=plots, device=device, command=command,
                                             finished=finished))
    labels = {point.label for point in points}
    write_json(folder / "study.json", {
        "study": study.name, "about": study.config.about, "recipe": study.recipe.name, "finished": finished,
        "device": device, "versions": package_versions(), "command": command, "seeds": study.config.seeds,
        "points": [{"label": point.label, "axes": point.axes, "set": point.overrides,
                    "status": "failed" if point.label in failed else "done" if point.label in labels else "not done",
                    "error": failed.get(point.label, ""),
                    "systems": [_system(item) for found in points if found.label == point.label
                                for item in found.systems]} for point in study.points],
        "rows": [_row(row) for row in rows]})


def markdown(study: Study, points: Sequence[PointResults], rows: Sequence[Row], failed: Mapping[str, str], *,
             plots: Sequence[str], device: str, command: str, finished: str) -> str:
    """The page: what was varied, the table, the plots, what failed."""
    done = len({point.label for point in points})
    parts = [f"# Study: {study.name}"]
    if study.config.about:
        parts.append(study.config.about)
    values = {short: dict.fromkeys(value_text(point.axes[axis]) for point in study.points if axis in point.axes)
              for axis, short in _axes(study, with_seeds=True).items()}
    parts.append(f"{done} of {len(study.points)} points of the recipe {study.recipe.name}; "
                 + "; ".join(f"{short}: {', '.join(found)}" for short, found in values.items()) + ".")
    parts += [main_table(study, rows), legend(study, rows)] if rows else ["Nothing is measured yet."]
    if failed:
        parts += ["## Points that failed", "\n".join(f"- {label}: {message}" for label, message in failed.items())]
    if plots:
        parts += ["## Plots", "\n\n".join(f"![{Path(name).stem}]({name})" for name in plots)]
    parts += ["## How it was made", "\n".join([
        f"- Command: `{command}`", f"- Device: {device}", f"- Finished: {finished}",
        "- Versions: " + ", ".join(f"{name} {version}" for name, version in package_versions().items())])]
    return "\n\n".join(parts) + "\n"


def main_table(study: Study, rows: Sequence[Row]) -> str:
    """Axes, system, parameters, seeds, and the columns that hold any figure; what points share stands once."""
    shown = list(merged(rows))
    axes = _axes(study)
    splits = list(dict.fromkeys(row.split for row in shown))
    columns = [column for column in COLUMNS if any(column[0] in row.figures for row in shown)]
    tested = any(row.p is not None for row in shown)
    header = [*axes.values(), "system", *(["split"] if len(splits) > 1 else []), "parameters", "seeds",
              *(title for _, title, _ in columns), *(["WER - baseline", "p"] if tested else [])]
    body = []
    for row in shown:
        cells = [value_text(row.axes[axis]) if axis in row.axes else ABSENT for axis in axes]
        cells += [row.system, *([row.split] if len(splits) > 1 else []), count(row.parameters), _seeds(row)]
        cells += [spread_text(row.figures.get(name), digits, row.interval if name == "wer" else None)
                  for name, _, digits in columns]
        if tested:
            cells += ([f"{row.difference[0]:+.2f} [{row.difference[1]:+.2f}, {row.difference[2]:+.2f}]",
                       p_value(row.p).removeprefix("p ").removeprefix("= ")]
                      if row.difference and row.p is not None else [ABSENT, ABSENT])
        body.append(cells)
    return table(header, body, left=len(axes) + 1 + (len(splits) > 1))


def legend(study: Study, rows: Sequence[Row]) -> str:
    """What the columns mean."""
    splits = list(dict.fromkeys(row.split for row in rows))
    text = [f"Scored on {', '.join(splits)}. Mean ± standard deviation over seeds ({study.config.seeds})."]
    measures = {name for row in rows for name in row.figures}
    if measures & {"train_accuracy", "heldout_accuracy"}:
        text.append("Train and held-out: frames of the training split that were trained on and that were not.")
    if "wer" in measures:
        text.append("In brackets the 95 % bootstrap interval over utterances, an utterance's copies of all seeds drawn "
                    "together; WER - baseline: the difference from the baseline of the same seeds, with its interval "
                    "and the p of the paired bootstrap.")
    if "gain_frame_accuracy" in measures or "gain_wer" in measures:
        text.append("Gain kept: (student - baseline) / (ensemble - baseline), of several seeds the ratio of the means, "
                    "in brackets least and greatest; none where the ensemble is no better.")
    if "recovered" in measures:
        where = ", ".join(f"{axis} {value_text(value)}" for axis, value in study.config.reference.items())
        text.append(f"Recovered: (student - baseline) / (baseline at {where} - baseline), in frame accuracy.")
    return " ".join(text)


def spread_text(spread: Spread | None, digits: int, interval: tuple[float, float] | None = None) -> str:
    """`51.23 ± 0.12`, `24.10 ± 0.31 [23.02, 25.19]`, a share with its least and greatest."""
    if spread is None:
        return ABSENT
    text = f"{spread.mean:.{digits}f}"
    if digits == 0:
        return f"{text} [{spread.low:.0f}, {spread.high:.0f}]" if spread.count > 1 else text
    if spread.deviation is not None:
        text += f" ± {spread.deviation:.{digits}f}"
    return f"{text} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else text


def _seeds(row: Row) -> str:
    return str(max((spread.count for spread in row.figures.values()), default=len(row.points)))


def _axes(study: Study, with_seeds: bool = False) -> dict[str, str]:
    """Axis -> short name."""
    keys = list(dict.fromkeys(axis for point in study.points for axis in point.axes))
    short = short_names(keys)
    return {axis: short[axis] for axis in keys if with_seeds or axis != study.config.seeds}


def _csv(study: Study, points: Sequence[PointResults]) -> str:
    """A line for each system and split of each point."""
    axes = _axes(study, with_seeds=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["point", *axes.values(), "system", "role", "split", "parameters", *CSV_FIGURES,
                     "gain_frame_accuracy", "gain_wer"])
    for point in points:
        for item in point.systems:
            gains = []
            for share in ("gain_frame_accuracy", "gain_wer"):
                parts = point.share(share, item)
                gains.append(round(100 * parts[0] / parts[1], 2) if parts and parts[1] else "")
            values = [value_text(point.axes[axis]) if axis in point.axes else "" for axis in axes]
            writer.writerow([point.label, *values, item.system, item.role, item.split, item.parameters,
                             *(round(item.figures[name], 4) if name in item.figures else "" for name in CSV_FIGURES),
                             *gains])
    return text.getvalue()


def _system(item: Any) -> dict[str, Any]:
    return {"name": item.system, "role": item.role, "split": item.split, "parameters": item.parameters,
            "figures": item.figures}


def _row(row: Row) -> dict[str, Any]:
    plain = {name: getattr(row, name) for name in ("axes", "system", "role", "split", "parameters", "p")}
    return plain | {"points": list(row.points), "wer_interval": list(row.interval) if row.interval else None,
                    "wer_difference": list(row.difference) if row.difference else None,
                    "figures": {name: dataclasses.asdict(spread) for name, spread in row.figures.items()}}
