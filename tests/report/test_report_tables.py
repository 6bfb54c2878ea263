"""RESULTS.md and the terminal's table: every figure is there, and the words claim no more than the tests allow."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from asr_distill.report.figures import count, duration, p_value, size
from asr_distill.report.results import Comparison, ErrorScores, Results, SplitData, SplitScores, System
from asr_distill.report.sentences import comparison_sentence, gain_sentences
from asr_distill.report.tables import data_table, main_table, markdown, statements, write_markdown
from asr_distill.report.terminal import terminal_table


def with_scores(results: Results, **changes: dict) -> Results:
    """Results in which a system's test scores differ."""
    systems = [dataclasses.replace(system, splits={"test": dataclasses.replace(
        system.splits["test"], **changes.get(system.name, {}))}) for system in results.systems]
    return dataclasses.replace(results, systems=systems, comparisons=[])


def compared(results: Results, a: str, b: str, p: float) -> str:
    first, second = results.scores(a, "test"), results.scores(b, "test")
    assert first and second and first.wer is not None and second.wer is not None
    return comparison_sentence(results, Comparison(a, b, "test", first.wer - second.wer, p))


def test_main_table_has_a_row_a_system(results: Results) -> None:
    lines = main_table(results).splitlines()
    assert len(lines) == 2 + 8 and len({len(line) for line in lines}) == 1  # aligned
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["system", "role", "parameters", "size", "frame accuracy %", "cross-entropy", "WER % [95 %]",
                        "RTF"]
    assert cells[3] == ["baseline", "baseline", "1.23 M", "4.94 MB", "58.90", "1.410", "20.00 [19.00, 21.00]", "0.020"]
    assert cells[2][4:] == ["–", "–", "50.00 [49.00, 51.00]", "0.020"]  # the GMM


def test_two_splits_get_their_own_columns(results: Results) -> None:
    student = results.system("student")
    assert student is not None
    other = dataclasses.replace(student, splits={**student.splits, "dev": student.splits["test"]})
    both = dataclasses.replace(results, systems=[*results.systems[:-2], other], comparisons=[],
                               data={**results.data, "dev": SplitData(0.2, 50, 2000, 4)})
    header = main_table(both).splitlines()[0]
    assert "test: WER % [95 %]" in header and "dev: WER % [95 %]" in header


def test_language_model_and_stages_are_shown_where_they_were_measured(results: Results) -> None:
    assert "perplexity" not in data_table(results) and "## Stages" not in markdown(results)
    measured = SplitData(0.25, 100, 2000, 8, 1.634, 273.31, 237.97)
    full = dataclasses.replace(results, data={**results.data, "test": measured}, stages={"mono": 75.5, "tri1": 254.0})
    header, _, train, test = data_table(full).splitlines()
    assert "unknown words %" in header and "perplexity, large model" in header
    assert re.search(r"\| +– \| +– \| +– \|$", train) and re.search(r"\| +1\.63 \| +273\.3 \| +238\.0 \|$", test)
    assert re.search(r"\| mono +\| +1 min 16 s \|\n\| tri1 +\| +4 min 14 s \|", markdown(full))


def test_page_says_where_it_comes_from(results: Results, tmp_path: Path) -> None:
    write_markdown(results, tmp_path / "RESULTS.md", command="make demo", plots={"Word error rates": "wer.png"})
    page = (tmp_path / "RESULTS.md").read_text()
    for part in ("# Results: demo", "Command: `make demo`", "Seeds: 1, 2, 3", "Device: cpu, 2 cores",
                 "Finished: 2025-11-24T22:30:00+00:00, after 1 h 28 min", "torch 2.11.0",
                 "![Word error rates](wer.png)", "126 pdfs"):
        assert part in page
    assert re.search(r"\| train +\| +5\.00 \| +1,500 \| +50,000 \| +30 \|", page)
    assert re.search(r"\| student +\| baseline +\| test +\| +-2\.00 \| +< 0\.001 \|", page)


def test_share_of_the_ensembles_gain(results: Results) -> None:
    student = results.system("student")
    assert student is not None
    accuracy, wer = gain_sentences(results, student)
    assert "kept 86 % of the ensemble's gain" in accuracy  # (60.8 - 58.9) / (61.1 - 58.9)
    assert "kept 80 % of the ensemble's gain" in wer  # (20.0 - 18.0) / (20.0 - 17.5)


def test_a_rescored_student_is_held_against_rescored_systems(results: Results) -> None:
    def rescored(name: str, errors: int) -> System:
        plain = results.system(name)
        assert plain is not None
        wer = 100 * errors / 2000
        scores = SplitScores(None, None, wer, wer - 1, wer + 1, errors - 30, 10, 20, 2000, 0.02)
        return dataclasses.replace(plain, name=name + "_large", splits={"test": scores})

    more = [rescored("baseline", 360), rescored("ensemble", 260), rescored("student", 300)]
    (sentence,) = gain_sentences(dataclasses.replace(results, systems=[*results.systems, *more]), more[2])
    assert "student_large kept 60 % of the ensemble's gain" in sentence  # (18 - 15) / (18 - 13)
    assert gain_sentences(dataclasses.replace(results, systems=[*results.systems, more[2]]), more[2]) == []


@pytest.mark.parametrize(("accuracy", "words"), [
    (61.5, "kept all of the ensemble's gain and more"), (58.0, "kept none of the ensemble's gain"),
    (58.9, "kept 0 % of the ensemble's gain")])
def test_share_beyond_the_ends(results: Results, accuracy: float, words: str) -> None:
    changed = with_scores(results, student={"frame_accuracy": accuracy})
    assert words in gain_sentences(changed, next(s for s in changed.systems if s.name == "student"))[0]


def test_no_gain_no_share(results: Results) -> None:
    changed = with_scores(results, ensemble={"frame_accuracy": 58.5})
    assert "gained nothing" in gain_sentences(changed, next(s for s in changed.systems if s.name == "student"))[0]


def test_share_of_a_gain_that_chance_explains(results: Results) -> None:
    doubtful = dataclasses.replace(results, comparisons=[Comparison("ensemble", "baseline", "test", -2.5, 0.2)])
    student = results.system("student")
    assert student is not None
    assert "not significant (p = 0.200), so this share says little" in gain_sentences(doubtful, student)[1]


def test_comparisons_claim_no_more_than_the_test(results: Results) -> None:
    sure = compared(results, "student", "baseline", 0.001)
    assert sure == ("student against baseline on test: WER 18.00 against 20.00, 2.00 points lower; "
                    "a significant improvement by the paired test (p = 0.001).")
    inside = compared(results, "student", "ensemble", 0.31)
    assert "0.50 points higher; not significant (p = 0.310), and inside the 95 % interval of ensemble" in inside
    assert "chance alone can explain it" in inside
    outside = compared(results, "student", "baseline", 0.05)
    assert "not significant" in outside and "interval" not in outside and "improvement" not in outside
    close = compared(results, "student", "ensemble", 0.04)
    assert "significantly worse by the paired test (p = 0.040), though inside the 95 % interval of ensemble" in close
    assert "no difference" in compared(results, "student", "student", 1.0)


def test_exported_student_is_set_beside_its_student(results: Results) -> None:
    assert "student_onnx (as deployed) on test: WER 18.05, student 18.00; +0.05 points." in statements(results)


def test_terminal_table_fits(results: Results) -> None:
    long = dataclasses.replace(results.systems[5], name="ensemble_of_a_great_many_teachers_with_a_long_name_indeed")
    wide = dataclasses.replace(results, systems=[*results.systems[:5], long, *results.systems[6:]], comparisons=[])
    for shown in (terminal_table(results), terminal_table(wide)):
        assert max(map(len, shown.splitlines())) <= 100
        for figure in ("20.00 [19.00, 21.00]", "61.10", "1.290", "81.8 MB", "student_onnx"):
            assert figure in shown
    assert "test (0.25 h, 100 utterances, 2,000 words)" in terminal_table(results)


def test_mnist_shows_errors(results: Results) -> None:
    net = System("net", "student", 1_275_210, 5_100_840, 10, {"mnist": ErrorScores(99.2, 0.03, 74)})
    mnist = dataclasses.replace(results, data={"mnist": SplitData(None, 10_000, None, None)}, systems=[net],
                                comparisons=[])
    assert "74 errors" in markdown(mnist) and "74 errors" in terminal_table(mnist)


def test_numbers_as_people_read_them() -> None:
    assert [count(value) for value in (0, 999, 1000, 84_123, 6_820_000, 20_460_000, 123_456_789)] == [
        "0", "999", "1.00 k", "84.1 k", "6.82 M", "20.5 M", "123 M"]
    assert [size(value) for value in (12, 27_280_000)] == ["12 B", "27.3 MB"]
    assert [duration(value) for value in (4.06, 200, 3725)] == ["4.1 s", "3 min 20 s", "1 h 02 min"]
    assert [p_value(value) for value in (0.0001, 0.0312)] == ["p < 0.001", "p = 0.031"]
