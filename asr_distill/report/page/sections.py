"""The page's parts but for the examples: tables, charts, provenance."""

from __future__ import annotations

import yaml

from asr_distill.report.figures import ABSENT, count, duration, number, p_value, size
from asr_distill.report.page.charts import calibration_panels, cost_panel, error_panel, training_panels
from asr_distill.report.page.experiment import Experiment
from asr_distill.report.page.markup import Content, Html, join, tag
from asr_distill.report.page.svg import SHAPES, key, legend, stroke
from asr_distill.report.results import RESCORED, Results, SplitScores, System
from asr_distill.report.tables import comparison_rows, data_rows, error_rows, main_rows, statements
from asr_distill.report.tables import legend as column_legend

ROLE_WORDS = {"gmm": "GMM", "baseline": "baseline", "teacher": "teacher", "ensemble": "ensemble", "student": "student",
              "export": "export"}


def section(identity: str, title: str, *parts: Content) -> Html:
    return tag("section", tag("h2", title, id=f"{identity}-heading"), *parts, id=identity,
               aria_labelledby=f"{identity}-heading")


def data_grid(header: list[str], rows: list[list[Content]], *, left: int, name: str) -> Html:
    """A table in a box of its own that scrolls where it is too wide; the first `left` columns are text."""
    head = tag("tr", *(tag("th", title, scope="col", class_=None if at < left else "figure")
                       for at, title in enumerate(header)))
    body = [tag("tr", *(tag("th", cell, scope="row") if at == 0 else
                        tag("td", cell, class_=None if at < left else "figure") for at, cell in enumerate(row)))
            for row in rows]
    return tag("div", tag("table", tag("caption", name), tag("thead", head), tag("tbody", *body)), class_="scroll",
               role="region", aria_label=name, tabindex=0)


def summary(results: Results) -> Html:
    """Title, what it was measured on, and the student's main figures."""
    splits = [_split_words(results, split) for split in results.scored_splits()]
    return tag("header", tag("p", "asr_distill", class_="kicker"), tag("h1", f"Results: {results.recipe}"),
               tag("p", f"{results.finished[:10]}. Scored on {'; '.join(splits)}.", class_="lead"), _tiles(results))


def results_section(results: Results) -> Html:
    """Main table, what it says, and the paired tests."""
    header, plain = main_rows(results)
    rows: list[list[Content]] = [[join(key(system.role), " ", row[0]), *row[1:]]
                                 for row, system in zip(plain, results.systems, strict=True)]
    parts: list[Content] = [data_grid(header, rows, left=2, name="Systems"),
                            tag("p", column_legend(results), class_="note")]
    if sentences := statements(results):
        parts += [tag("h3", "What the figures say"), tag("ul", *(tag("li", item) for item in sentences))]
    if results.comparisons:
        header, compared = comparison_rows(results)
        parts += [tag("h3", "Comparisons"), data_grid(header, _content(compared), left=3, name="Paired tests")]
    header, errors = error_rows(results)
    if errors:
        parts.append(tag("details", tag("summary", "Word errors by kind"),
                         data_grid(header, _content(errors), left=2, name="Word errors by kind")))
    return section("results", "Systems", *parts)


def charts_section(experiment: Experiment) -> Html:
    """Every chart that there are figures for."""
    results = experiment.results
    roles = [role for role in SHAPES if results.with_role(role)]
    parts: list[Content] = [legend(*((key(role), ROLE_WORDS[role]) for role in roles))]
    for at, split in enumerate(results.scored_splits(), 1):
        drawn = [error_panel(results, split, f"errors-{at}"), cost_panel(results, split, f"size-{at}", "size"),
                 error_panel(results, split, f"ladder-{at}", ladder=True),
                 cost_panel(results, split, f"speed-{at}", "rtf")]
        if found := [panel for panel in drawn if panel]:
            parts.append(_charts(*found, tall=len(found) == 3))
    if any(system.name.endswith(RESCORED) for system in results.systems) or results.with_role("gmm"):
        parts.append(tag("p", "Size and speed: networks as they decode; GMMs and what the large language model weighed "
                              "anew are in the table.", class_="note"))
    if panels := training_panels(experiment.curves(), "training"):
        kinds = legend((stroke("line"), "held out"),
                       (stroke("dashed"), "training loss of teachers and baseline (the student's is on another scale)"),
                       (key("student", hollow=True), "hollow: on frames trained on, the network that was kept"))
        parts += [tag("h3", "Training"), kinds, _charts(*panels)]
    bins = experiment.reliability()
    if panels := calibration_panels(bins, "calibration"):
        errors = ", ".join(f"{name} {100 * item.expected_calibration_error:.1f} %" for name, (_, item) in bins.items())
        parts += [tag("h3", "Calibration"), _charts(*panels),
                  tag("p", f"Expected calibration error: {errors}.", class_="note")]
    return section("charts", "Charts", *parts)


def origin_section(results: Results) -> Html:
    """Seeds, device, versions, data, seconds of each stage, settings."""
    facts = {"Seeds": ", ".join(map(str, results.seeds)) or ABSENT, "Device": results.device,
             "Finished": f"{results.finished}, after {duration(results.seconds)}",
             "Versions": ", ".join(f"{name} {version}" for name, version in results.versions.items())}
    header, rows = data_rows(results)
    parts: list[Content] = [
        tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in facts.items())),
        data_grid(header, _content(rows), left=1, name="Data")]
    if results.stages:
        parts.append(tag("details", tag("summary", "Seconds of every stage"), _stages(results)))
    settings = yaml.safe_dump(results.settings, sort_keys=False, allow_unicode=True, width=100)
    parts.append(tag("details", tag("summary", "Settings"),
                     tag("pre", settings, class_="scroll", tabindex=0, role="region", aria_label="Settings"),
                     class_="long"))  # on paper it stays folded
    return section("origin", "How it was made", *parts)


def _stages(results: Results) -> Html:
    most = max(results.stages.values()) or 1.0
    rows: list[list[Content]] = [
        [name, f"{seconds:,.1f}", duration(seconds),
         tag("svg", tag("rect", width=round(100 * seconds / most, 2), height=8, class_="bar"), viewBox="0 0 100 8",
             class_="bars", preserveAspectRatio="none", aria_hidden="true")]
        for name, seconds in results.stages.items()]
    return data_grid(["stage", "seconds", "", ""], rows, left=1, name="Seconds of every stage")


def _tiles(results: Results) -> Html | None:
    """The first student's figures on the first split that it was decoded on."""
    student = next((system for system in results.with_role("student") if not system.name.endswith(RESCORED)), None)
    if student is None:
        return None
    split = next((split for split in results.scored_splits()
                  if (scores := results.scores(student.name, split)) and scores.wer is not None), "")
    scores = results.scores(student.name, split)
    if scores is None:
        return None
    tiles = [(f"{number(scores.wer, 2)} %", f"WER of the student on {split}",
              f"95 %: {number(scores.wer_low, 2)} to {number(scores.wer_high, 2)}"),
             *_beside(results, student, split),
             (size(student.bytes), "size of its network", f"{count(student.parameters)} parameters")]
    if scores.rtf is not None:
        tiles.append((number(scores.rtf, 3), "RTF", "seconds of work a second of audio"))
    return tag("div", *(tag("p", tag("strong", figure), tag("span", name), tag("small", more))
                        for figure, name, more in tiles), class_="tiles")


def _beside(results: Results, student: System, split: str) -> list[tuple[str, str, str]]:
    """WER differences to the baseline and the ensemble, with the paired tests' p."""
    found = []
    for role in ("baseline", "ensemble"):
        names = [system.name for system in results.with_role(role)]
        for item in results.comparisons:
            if item.a == student.name and item.b in names and item.split == split:
                other: SplitScores | None = results.scores(item.b, split)
                assert other is not None
                found.append((f"{item.wer_difference:+.2f}", f"points against the {role}",
                              f"{number(other.wer, 2)} %; {p_value(item.p)}"))
                break
    return found


def _split_words(results: Results, split: str) -> str:
    data = results.data[split]
    facts = [f"{data.hours:.2f} h" if data.hours is not None else "", f"{data.utterances:,} utterances",
             f"{data.words:,} words" if data.words is not None else "",
             f"{data.speakers} speakers" if data.speakers is not None else ""]
    return f"{split} ({', '.join(fact for fact in facts if fact)})"


def _charts(*panels: Html, tall: bool = False) -> Html:
    """Side by side where there is room; `tall`: two beside the first."""
    return tag("div", *panels, class_="charts tall" if tall else "charts")


def _content(rows: list[list[str]]) -> list[list[Content]]:
    return [list(row) for row in rows]
