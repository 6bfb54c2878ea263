"""The page: whole, sound HTML that shows the results, loads nothing and lets no text become markup."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import io
import re
import shutil
from pathlib import Path

import pytest
import soundfile
from html_check import Element, checked
from page_experiment import SPLIT

from asr_distill.cli import main
from asr_distill.errors import UserError
from asr_distill.report import page_command
from asr_distill.report.figures import wer
from asr_distill.report.page.examples import Example, Examples, Line, Token, collect_examples
from asr_distill.report.page.experiment import Experiment
from asr_distill.report.page.page import page
from asr_distill.report.results import Comparison, ErrorScores, Results, SplitData, System

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"


@pytest.fixture(scope="module")
def written(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "page.html"
    assert run(experiment, "--out", out, "--examples", 5) == 0
    return out


@pytest.fixture(scope="module")
def tree(written: Path) -> Element:
    return checked(written.read_text(encoding="utf-8"))


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    page_command.add_arguments(parser)
    return page_command.run(parser.parse_args([str(argument) for argument in arguments]))


def results_alone(results: Results, folder: Path) -> Experiment:
    """A folder that holds nothing else, as docs/results does."""
    folder.mkdir(exist_ok=True)
    results.write(folder / "RESULTS.json")
    return Experiment(folder)


def cells(table: Element) -> list[list[str]]:
    return [[cell.text.strip() for cell in row.children] for row in table.all("tr")]


def test_every_figure_is_on_the_page(tree: Element, experiment: Path) -> None:
    results = Experiment(experiment).results
    systems, compared, *_ = (cells(table) for table in tree.all("table"))
    assert systems[0][:2] == ["system", "role"]
    assert [row[0] for row in systems[1:]] == [system.name for system in results.systems]
    for row, system in zip(systems[1:], results.systems, strict=True):
        assert wer(results.scores(system.name, SPLIT)) in row
    assert [row[:3] for row in compared[1:]] == [[item.a, item.b, item.split] for item in results.comparisons]
    text = tree.text
    for part in ("Results: toy", results.finished, "1, 2", "torch ", "width: 96", f"Scored on {SPLIT} (", "90.0",
                 "1 min 30 s", "Expected calibration error: "):
        assert part in text, part
    assert len(tree.all("svg", "chart")) == 7  # errors, size, speed; training: 2; calibration: 2


def test_the_policy_lets_the_pages_own_script_and_style_run_and_nothing_else(tree: Element) -> None:
    (policy,) = (meta.attributes["content"] or "" for meta in tree.all("meta")
                 if meta.attributes.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for kind, name in (("script-src", "script"), ("style-src", "style")):
        (element,) = tree.all(name)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert set(rules) == {"default-src", "base-uri", "form-action", "script-src", "style-src", "media-src", "img-src"}
    assert rules["media-src"] == rules["img-src"] == "data:"


def test_nothing_on_the_page_is_an_address_of_the_network(written: Path) -> None:
    text = re.sub(r"base64,[A-Za-z0-9+/=]*", "", written.read_text(encoding="utf-8"))
    assert not re.search(r"https?:|//[a-z]|@import|fetch\(|XMLHttp|import\(", text)


def test_words_and_sounds_are_those_of_the_examples(tree: Element, experiment: Path) -> None:
    examples = collect_examples(Experiment(experiment), 5, 8_000_000)
    cards = tree.all("article", "example")
    assert len(cards) == len(examples.items) == 5
    for card, item in zip(cards, examples.items, strict=True):
        (player,) = card.all("audio")
        prefix, _, data = (player.attributes["src"] or "").partition("base64,")
        assert prefix == "data:audio/flac;" and base64.b64decode(data) == item.flac
        assert soundfile.info(io.BytesIO(item.flac)).duration == pytest.approx(item.seconds, abs=0.01)
        lines = card.all("div", "said")
        assert len(lines) == len(item.lines) == 4
        for said, line in zip(lines, item.lines, strict=True):
            words = said.all("button")
            assert [word.attributes["tabindex"] for word in words] == ["0", *["-1"] * (len(words) - 1)]  # one stop
            for word, token in zip(words, line.tokens, strict=True):
                assert float(word.attributes["data-at"] or "") == pytest.approx(token.start, abs=6e-4)
                assert {"sub": "S", "ins": "I", "del": "D"}.get(word.classes[-1], "") == token.mark
                # told by a letter and in words, not by colour alone
                assert [mark.text for mark in word.all("sup")] == ([token.mark] if token.mark else [])
                assert [struck.text for struck in word.all("s")] == ([token.reference] if token.mark in ("S", "D")
                                                                    else [])
                label = word.attributes.get("aria-label")
                assert label == {"": None, "S": f"{token.word}, substituted for {token.reference}",
                                 "I": f"{token.word}, inserted", "D": f"{token.reference}, deleted"}[token.mark]


def test_how_examples_were_chosen_is_said(tree: Element) -> None:
    section = next(element for element in tree.all("section") if element.attributes["id"] == "examples")
    assert "5 utterances of test_clean, chosen by rule from the errors of student" in section.text
    assert "for the better and for the worse" in section.text and "of audio are part of this page" in section.text
    assert "forced alignment" in section.text and "guess" not in section.text


def test_guessed_times_are_called_that(experiment: Path) -> None:
    tokens = (Token("", "A", "A", 0.0, 1.0),)
    item = Example("u1", "best", 1.0, b"", (Line("reference", tokens, False),))
    text = checked(page(Experiment(experiment), Examples((item,), "", SPLIT, "student"))).text
    assert "Word times are guesses where marked" in text and "u1, 1.0 s, word times guessed" in text


def test_no_text_becomes_markup(results: Results, tmp_path: Path) -> None:
    """Names, settings, devices, words: all of it comes from files that anybody may have written."""
    systems = [dataclasses.replace(system, name=system.name + HOSTILE, splits={HOSTILE: system.splits["test"]})
               for system in results.systems]
    hostile = dataclasses.replace(
        results, recipe=HOSTILE, device=HOSTILE, versions={HOSTILE: HOSTILE}, settings={HOSTILE: [HOSTILE]},
        stages={HOSTILE: 2.0}, data={HOSTILE: results.data["test"]}, systems=systems,
        comparisons=[Comparison("student" + HOSTILE, "baseline" + HOSTILE, HOSTILE, -2.0, 0.01)])
    tokens = (Token("", HOSTILE, HOSTILE, 0, 1), Token("S", HOSTILE, "x", 1, 2), Token("D", "", HOSTILE, 2, 3))
    item = Example(HOSTILE, HOSTILE, 3.0, b"", (Line("reference", tokens, True), Line(HOSTILE, tokens, True)))
    document = page(results_alone(hostile, tmp_path / "exp"), Examples((item,), "", HOSTILE, HOSTILE))
    tree = checked(document)
    assert len(tree.all("script")) == len(tree.all("style")) == 1 and not tree.all("img")
    assert HOSTILE in tree.all("h1")[0].text and tree.all("button")[0].text == HOSTILE
    assert document.count("<img") == 0 and document.count("</script>") == 1


def test_results_alone_make_a_page(results: Results, tmp_path: Path) -> None:
    assert results_alone(results, tmp_path / "exp") and run(tmp_path / "exp") == 0
    tree = checked((tmp_path / "exp" / "report.html").read_text(encoding="utf-8"))
    assert "There is nothing to listen to here: no system's words" in tree.text and not tree.all("audio")
    assert len(tree.all("svg", "chart")) == 3  # errors of networks and of GMMs, size; all are equally fast


def test_a_task_without_words(results: Results, tmp_path: Path) -> None:
    nets = (("large", "teacher", 900, 67), ("plain", "baseline", 400, 146), ("distilled", "student", 400, 74))
    systems = [System(name, role, 100, size, 10, {"test": ErrorScores(98.0, 0.1, errors)})  # type: ignore[arg-type]
               for name, role, size, errors in nets]
    digits = dataclasses.replace(results, recipe="mnist", systems=systems, comparisons=[],
                                 data={"test": SplitData(None, 10_000, None, None)})
    tree = checked(page(results_alone(digits, tmp_path / "exp"), Examples(reason="none")))
    (table, *_) = (cells(each) for each in tree.all("table"))
    assert table[0][-1] == "errors" and table[1][-1] == "67 errors" and "WER" not in tree.text
    assert len(tree.all("svg", "chart")) == 2


def test_nothing_measured_is_a_page_too(results: Results, tmp_path: Path) -> None:
    empty = dataclasses.replace(results, systems=[], comparisons=[], stages={}, seeds=[], settings={})
    assert not checked(page(results_alone(empty, tmp_path / "exp"), Examples(reason="none"))).all("svg", "chart")


def test_an_unfinished_experiment_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "RESULTS.json: no such file; run the recipe to its stage 'report' first" in message
    assert message.count("\n") == 1
    (tmp_path / "RESULTS.json").write_text("{}")
    assert main(["report", str(tmp_path)]) == 1 and "is missing" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 1 and "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("option", "value"), [("--examples", "-1"), ("--audio-limit", "0"), ("--audio-limit", "nan"),
                                               ("--out", ".")])
def test_wrong_options(experiment: Path, option: str, value: str) -> None:
    with pytest.raises(UserError, match=option):
        run(experiment, option, value)


def test_a_page_that_fails_leaves_the_old_one(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("old")
    exp = tmp_path / "exp"
    shutil.copytree(experiment, exp)
    (exp / "04_networks" / "student" / "training.json").write_text("{")
    with pytest.raises(UserError, match=r"training\.json"):
        run(exp, "--out", tmp_path / "page.html", "--examples", 0)
    assert (tmp_path / "page.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_same_experiment_gives_the_same_page(written: Path, experiment: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert run(experiment, "--out", tmp_path / "again.html", "--examples", 5) == 0
    assert (tmp_path / "again.html").read_bytes() == written.read_bytes()
    assert re.search(r"again\.html: 0\.\d MB, 5 examples \(0\.\d MB of audio\)", capsys.readouterr().out)


def test_help_is_quick() -> None:
    """Nothing heavy is imported before a page is asked for."""
    source = Path(page_command.__file__).read_text()
    above = source[:source.index("def run(")]
    assert re.findall(r"^(?:from|import) (\S+)", above, re.M) == ["__future__", "argparse", "pathlib",
                                                                  "asr_distill.errors"]
