"""SPECIALISTS.json and its page: what specialists bring beside a generalist, of one experiment or several.

SPECIALISTS.json: {"results": RESULTS.json's form, with the systems generalist, control, control_mean, combined and
(where one was distilled) specialist_student; "coverage": {split: [{"reference", "system", "rows": [CoverageRow]}]};
"sets": [{"senones", "mass", "phones", "updates", "accuracy", "correction"}]; "facts": {...}; "command"}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from asr_distill.errors import UserError
from asr_distill.files import read_json
from asr_distill.report.figures import ABSENT
from asr_distill.report.results import results_from_dict
from asr_distill.report.tables import comparison_table, data_table, main_table, provenance, stage_table, table

Facts = Mapping[str, Any]
SPECIALISTS = "SPECIALISTS.json"
SHOWN_SETS = 12
WORDS = {"control": "the generalist trained on for as many updates", "control_mean": "the mean of generalist and "
         "control", "combined": "generalist and specialists"}


def read_facts(path: Path) -> Facts:
    """A SPECIALISTS.json. Raises UserError where it is missing, or not in that form."""
    facts = read_json(path)
    try:
        results_from_dict(facts["results"])
        page({"": facts})
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: not a {SPECIALISTS} ({error!r}); run the stage specialist_report again") from None
    return facts


def page(points: Mapping[str, Facts], command: str = "") -> str:
    """Markdown: a table of all points where there are several, then each one's own tables."""
    parts = ["# Specialists beside a generalist, on senones",
             "The paper's section 5; docs/specialists.md explains the method and the words. Accuracies are frame "
             "accuracies against the forced alignment, in percent; differences in points, with their 95 % interval by "
             "paired bootstrap over utterances (and over speakers)."]
    if command:
        parts.append(f"This page: `{command}`")
    if len(points) > 1:
        parts += ["## All", overview(points)]
    for label, facts in points.items():
        parts += point_parts(label, facts, "## " if len(points) > 1 else "")
    return "\n\n".join(parts) + "\n"


def overview(points: Mapping[str, Facts]) -> str:
    """One line for each point and split."""
    header = ["experiment", "split", "specialists", "covered frames %", "generalist %", "combined %",
              "combined - generalist", "control - generalist", "combined - mean of generalist and control"]
    rows = []
    for label, facts in points.items():
        for split, tables in facts["coverage"].items():
            rows_of = _by_pair(tables)
            main = rows_of["generalist", "combined"]
            total = main[-1]
            none = sum(row["frames"] for row in main if row["covering"] == 0)
            rows.append([label, split, str(facts["facts"]["specialists"]), f"{100 - 100 * none / total['frames']:.1f}",
                         f"{100 * total['reference_accuracy']:.2f}", f"{100 * total['system_accuracy']:.2f}",
                         _difference(total), _difference(rows_of["generalist", "control"][-1]),
                         _difference(rows_of["control_mean", "combined"][-1])])
    return table(header, rows, left=2)


def point_parts(label: str, facts: Facts, heading: str) -> list[str]:
    """Sections of one experiment."""
    results = results_from_dict(facts["results"])
    parts = [f"{heading}{label}"] if heading else []
    level = "###" if heading else "##"
    for split, tables in facts["coverage"].items():
        rows_of = _by_pair(tables)
        parts += [f"{level} By the number of specialists that cover the correct senone: {split}",
                  coverage_table(rows_of["generalist", "combined"]),
                  "\n".join(f"- {sentence}" for sentence in findings(rows_of))]
        parts += [f"{level} The same of what it is compared with: {split}", others_table(rows_of)]
    parts += [f"{level} Systems", main_table(results)]
    if results.comparisons:
        parts.append(comparison_table(results))
    parts += [f"{level} Sets", sets_text(facts), f"{level} How it was made",
              provenance(results, facts["command"]) + "\n" + settings_text(facts["facts"]),
              data_table(results), stage_table(results)]
    return parts


def coverage_table(rows: list[Mapping[str, Any]]) -> str:
    """The paper's table 4: its columns, and an interval."""
    header = ["specialists covering", "frames", "generalist %", "with specialists %", "change of correct frames",
              "relative accuracy change", "difference [95 %]", "[95 %, speakers]"]
    lines = []
    for row in rows:
        relative = ABSENT if row["relative_change"] is None else f"{100 * row['relative_change']:+.2f} %"
        lines.append([_covering(row), f"{row['frames']:,}", f"{100 * row['reference_accuracy']:.2f}",
                      f"{100 * row['system_accuracy']:.2f}", f"{row['system_correct'] - row['reference_correct']:+,}",
                      relative, _difference(row), _span(row, "speaker")])
    return table(header, lines, left=1)


def others_table(rows_of: Mapping[tuple[str, str], list[Mapping[str, Any]]]) -> str:
    """The differences of the other pairs, by coverage."""
    pairs = [pair for pair in rows_of if pair != ("generalist", "combined")]
    first = rows_of[pairs[0]]
    lines = [[_covering(row), *(_difference(rows_of[pair][at]) for pair in pairs)] for at, row in enumerate(first)]
    return table(["specialists covering", *(f"{system} - {reference}" for reference, system in pairs)], lines, left=1)


def findings(rows_of: Mapping[tuple[str, str], list[Mapping[str, Any]]]) -> list[str]:
    """What the last lines of the tables say, an interval that holds 0 called by its name."""
    found = []
    for (reference, system), rows in rows_of.items():
        row = rows[-1]
        low, high = 100 * row["difference_low"], 100 * row["difference_high"]
        verdict = "a gain" if low > 0 else "a loss" if high < 0 else "neither gain nor loss: the interval holds 0"
        against = "the generalist" if reference == "generalist" else WORDS[reference]
        found.append(f"{WORDS[system][:1].upper()}{WORDS[system][1:]} against {against}: {_difference(row)} points of "
                     f"frame accuracy, {verdict}.")
    return found


def sets_text(facts: Facts) -> str:
    """How many sets and senones, and the largest sets with the phones that their senones belong to."""
    about = facts["facts"]
    lines = [f"{about['specialists']} sets of {about['smallest']} to {about['largest']} senones (median "
             f"{about['median']:g}); {about['left_out']} of {about['num_pdfs']} senones are in none."]
    rows = [[str(number), str(entry["senones"]), f"{100 * entry['mass']:.2f}", f"{entry['updates']:,}",
             entry["phones"]] for number, entry in enumerate(facts["sets"][:SHOWN_SETS], 1)]
    lines.append(table(["set", "senones", "mass %", "updates", "senones by phone"], rows, left=0))
    if len(facts["sets"]) > SHOWN_SETS:
        lines.append(f"({len(facts['sets']) - SHOWN_SETS} smaller sets are in the JSON file.)")
    return "\n\n".join(lines)


def settings_text(about: Facts) -> str:
    """What matters of the settings, as more lines of the provenance."""
    return (f"- Generalist: {about['generalist']}\n- Dustbin: {about['dustbin']}\n"
            f"- Control: {about['control_updates']:,} updates")


def _by_pair(tables: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """A split's tables by (reference, system)."""
    return {(item["reference"], item["system"]): item["rows"] for item in tables}


def _covering(row: Mapping[str, Any]) -> str:
    return "all frames" if row["covering"] is None else str(row["covering"])


def _difference(row: Mapping[str, Any]) -> str:
    return f"{100 * row['difference']:+.2f} {_span(row, 'difference')}"


def _span(row: Mapping[str, Any], kind: str) -> str:
    return f"[{100 * row[f'{kind}_low']:+.2f}, {100 * row[f'{kind}_high']:+.2f}]"
