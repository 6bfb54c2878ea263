"""RESULTS.json: exactly DESIGN's form, there and back, and every wrong form refused."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asr_distill.errors import UserError
from asr_distill.report.results import ErrorScores, Results, SplitData, System

Change = Callable[[dict[str, Any]], object]


def test_round_trip(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "RESULTS.json")
    assert Results.load(tmp_path / "RESULTS.json") == results


def test_keys_are_those_of_the_interface(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "RESULTS.json")
    plain = json.loads((tmp_path / "RESULTS.json").read_text())
    assert set(plain) == {"recipe", "finished", "seconds", "device", "seeds", "versions", "settings", "data", "systems",
                          "comparisons", "stages"}
    assert set(plain["data"]["test"]) == {"hours", "utterances", "words", "speakers", "unknown_rate", "perplexity",
                                          "large_perplexity"}
    assert set(plain["systems"][0]) == {"name", "role", "parameters", "bytes", "targets", "splits"}
    assert set(plain["systems"][0]["splits"]["test"]) == {
        "frame_accuracy", "cross_entropy", "wer", "wer_low", "wer_high", "substitutions", "insertions", "deletions",
        "words", "rtf"}
    assert set(plain["comparisons"][0]) == {"a", "b", "split", "wer_difference", "p"}
    assert plain["systems"][0]["splits"]["test"]["frame_accuracy"] is None


def test_a_task_without_words_counts_errors(results: Results, tmp_path: Path) -> None:
    net = System("net", "student", 10, 40, 10, {"mnist": ErrorScores(99.2, 0.03, 74)})
    mnist = dataclasses.replace(results, data={"mnist": SplitData(None, 10_000, None, None)}, systems=[net],
                                comparisons=[])
    mnist.write(tmp_path / "RESULTS.json")
    assert Results.load(tmp_path / "RESULTS.json") == mnist
    split = json.loads((tmp_path / "RESULTS.json").read_text())["systems"][0]["splits"]["mnist"]
    assert split == {"frame_accuracy": 99.2, "cross_entropy": 0.03, "errors": 74, "rtf": None}


def scores_of(plain: dict[str, Any]) -> dict[str, Any]:
    return plain["systems"][1]["splits"]["test"]


WRONG: list[tuple[Change, str]] = [
    (lambda p: p.pop("device"), "'device' is missing"),
    (lambda p: p.update(devise="gpu"), r"unknown key 'devise' \(did you mean 'device'\?\)"),
    (lambda p: p.update(seconds="long"), "'seconds' must be a number, not 'long'"),
    (lambda p: p.update(seconds=-1.0), "seconds must not be negative"),
    (lambda p: p.update(seeds=[1, 2.5]), r"'seeds\[1\]' must be an integer, not 2.5"),
    (lambda p: p.update(seeds=3), "'seeds' must be a list"),
    (lambda p: p.update(versions={"torch": 2}), "'versions.torch' must be text"),
    (lambda p: p.update(finished="yesterday"), "finished must be an ISO time"),
    (lambda p: p["systems"][1].update(role="pupil"), r"'systems\[1\].role' must be one of gmm, baseline"),
    (lambda p: p["systems"][1].update(parameters=True), "parameters' must be an integer, not True"),
    (lambda p: p["systems"][1].update(name="ensemble"), "two systems have the name 'ensemble'"),
    (lambda p: p["systems"][1]["splits"].update(other=scores_of(p)), "scores for 'other', not in data"),
    (lambda p: p["data"]["test"].pop("hours"), "'data.test.hours' is missing"),
    (lambda p: scores_of(p).pop("wer"), r"'systems\[1\].splits.test.wer' is missing"),
    (lambda p: scores_of(p).update(errors=3), "unknown key .*errors"),
    (lambda p: scores_of(p).update(wer=None), "needs wer too"),
    (lambda p: scores_of(p).update(wer=0.2), "wer 0.2 is not 400 errors in 2000 words"),
    (lambda p: scores_of(p).update(wer_low=50.0), "wer_low 50.0 is above"),
    (lambda p: scores_of(p).update(frame_accuracy=101.0), "frame_accuracy must be a percentage"),
    (lambda p: scores_of(p).update(rtf=float("nan")), "must be a finite number"),
    (lambda p: p["comparisons"][0].update(a="nobody"), "not both have a word error rate"),
    (lambda p: p["comparisons"][0].update(p=1.5), "p must lie between 0 and 1"),
    (lambda p: p["comparisons"][0].update(wer_difference=2.0), "wer_difference 2.0 is not 18.00 - 20.00"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_forms_are_refused(results: Results, tmp_path: Path, change: Change, message: str) -> None:
    plain = copy.deepcopy(results.to_dict())
    change(plain)
    path = tmp_path / "RESULTS.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(UserError, match=message) as caught:
        Results.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "3", "{", ""])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "RESULTS.json").write_text(text)
    with pytest.raises(UserError, match=r"RESULTS\.json"):
        Results.load(tmp_path / "RESULTS.json")
    with pytest.raises(UserError, match="no such file"):
        Results.load(tmp_path / "none.json")


def test_writing_checks_too(results: Results, tmp_path: Path) -> None:
    for settings in ({"layers": (1, 2)}, {"rate": float("nan")}, {3: "x"}):
        with pytest.raises(ValueError):
            dataclasses.replace(results, settings=settings).write(tmp_path / "RESULTS.json")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two systems"):
        dataclasses.replace(results, systems=[results.systems[0]] * 2, comparisons=[])
    assert not list(tmp_path.iterdir())
