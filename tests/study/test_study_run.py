"""Studies of a toy recipe: what is run, what is shared, what a kill or a failure costs."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from study_toy import made, snapshot, write_recipe, write_study

from asr_distill import cli
from asr_distill.lock import exclusive

TEMPERATURES = """
    grid:
      distill.store.temperature: [1, 2, 5]
      student.seed: [1, 2]
    stages: [score_teachers, score_base, score]
    plots:
      - {x: distill.store.temperature, y: gain_frame_accuracy, log: true}
      - {x: distill.store.temperature, y: frame_accuracy}
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    write_recipe(tmp_path)
    return tmp_path


@pytest.fixture
def base(toy: Path) -> Path:
    """A finished experiment with seed 1 at temperature 2."""
    assert cli.main(["run", str(toy / "run.py"), "--exp-dir", str(toy / "exp"), "--device", "cpu"]) == 0
    assert made(toy) == ["teach", "soft", "base", "learn", "score_teachers", "score_base", "score"]
    return toy / "exp"


def study(file: Path, *extra: str) -> int:
    return cli.main(["study", str(file), "--device", "cpu", *extra])


def results(exp: Path, name: str = "some") -> dict:
    return json.loads((exp / "study" / name / "study.json").read_text())


def test_only_what_a_point_changes_is_run_and_once(toy: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(base)
    file = write_study(toy, TEMPERATURES, base=base)
    assert study(file, "--list") == 0
    listing = capsys.readouterr().out
    assert "temperature=1,seed=1: soft, learn, score" in listing and "temperature=2,seed=1: nothing to run" in listing
    assert "temperature=1,seed=2: base, learn, score_base, score" in listing
    assert "temperature=2,seed=2: learn, score" in listing
    assert not (base / "study").exists() and made(toy) == []

    assert study(file) == 0
    assert Counter(made(toy)) == {"soft": 2, "base": 1, "learn": 5, "score_base": 1, "score": 5}
    assert snapshot(base) == before
    points = base / "study" / "some" / "points"
    links = points / "temperature=1,seed=1"
    assert sorted(path.name for path in links.iterdir()) == [
        "01_teach", "02_soft", "03_base", "04_learn", "05_score_teachers", "06_score_base", "07_score",
        "point.json"]
    assert (links / "01_teach").readlink() == Path("../../../../01_teach")
    assert (links / "02_soft").resolve() == (points / "temperature=1,seed=2" / "02_soft").resolve()
    assert (links / "02_soft").resolve() != (points / "temperature=2,seed=1" / "02_soft").resolve()

    assert study(file) == 0
    assert made(toy) == [] and snapshot(base) == before
    moved = toy / "elsewhere"
    base.rename(moved)
    assert (moved / "study/some/points/temperature=5,seed=2/01_teach/stage.json").is_file()
    assert study(file, "--base", str(moved)) == 0
    assert made(toy) == []


def test_the_table(toy: Path, base: Path) -> None:
    assert study(write_study(toy, TEMPERATURES, base=base)) == 0
    found = results(base)
    assert [point["status"] for point in found["points"]] == ["done"] * 6
    rows = {(row["axes"]["distill.store.temperature"], row["system"]): row for row in found["rows"]}
    # baseline 52 and 53, ensemble 63, student 63 - |T - 2| - 1 + 0.1 seed
    student = rows[5, "student"]["figures"]["frame_accuracy"]
    assert student["mean"] == pytest.approx(59.15) and student["count"] == 2
    assert student["deviation"] == pytest.approx(0.1 / 2**0.5)
    gain = rows[5, "student"]["figures"]["gain_frame_accuracy"]
    assert gain["mean"] == pytest.approx(100 * (59.15 - 52.5) / (63 - 52.5))
    assert gain["low"] == pytest.approx(100 * (59.2 - 53) / 10) and gain["high"] == pytest.approx(100 * 7.1 / 11)
    assert rows[5, "ensemble"]["figures"]["frame_accuracy"]["count"] == 1
    page = (base / "study/some/study.md").read_text()
    assert page.count("| baseline ") == 1 and page.count("| ensemble ") == 1 and page.count("| student ") == 3
    lines = list(csv.DictReader((base / "study/some/study.csv").open()))
    assert len(lines) == 18
    assert lines[0]["point"] == "temperature=1,seed=1" and lines[0]["temperature"] == "1"
    for name in ("gain_frame_accuracy_temperature.png", "frame_accuracy_temperature.png"):
        assert (base / "study/some" / name).read_bytes().startswith(b"\x89PNG") and name in page


def test_studies_of_one_base_share_their_stages(toy: Path, base: Path) -> None:
    assert study(write_study(toy, TEMPERATURES, base=base)) == 0
    made(toy)
    weights = write_study(toy, """
        grid: {distill.loss.weight: [0.0, 0.5], distill.store.temperature: [5], student.seed: [1, 2]}
    """, base=base, name="weights")
    assert study(weights) == 0
    assert made(toy) == ["learn", "score", "learn", "score"]  # at weight 0.5 they are the other study's


def test_workers_share_new_stages_too(toy: Path, base: Path) -> None:
    assert study(write_study(toy, TEMPERATURES, base=base), "--workers", "2") == 0
    assert Counter(made(toy)) == {"soft": 2, "base": 1, "learn": 5, "score_base": 1, "score": 5}
    assert [point["status"] for point in results(base)["points"]] == ["done"] * 6


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_point_that_fails_is_named_and_the_others_go_on(
        toy: Path, base: Path, capsys: pytest.CaptureFixture[str], workers: str) -> None:
    file = write_study(toy, "grid: {student.width: [13, 14, 16], student.seed: [1]}", base=base)
    assert study(file, "--workers", workers) == 1
    message = capsys.readouterr().err
    assert "2 points failed (some, width=13,seed=1; some, width=14,seed=1)" in message.splitlines()[-1]
    found = {point["axes"]["student.width"]: point for point in results(base)["points"]}
    assert found[13]["error"] == "stage learn: 13 brings bad luck: use another width"
    assert found[14]["error"].startswith("stage learn: ZeroDivisionError: oh (run.py, line ")
    assert [found[width]["status"] for width in (13, 14, 16)] == ["failed", "failed", "done"]
    assert made(toy).count("score") == 1
    assert "13 brings bad luck" in (base / "study/some/study.md").read_text()
    assert study(file, "--table") == 0
    assert made(toy) == []


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_shared_stage_that_fails_takes_its_points_with_it(toy: Path, base: Path, workers: str) -> None:
    script = toy / "run.py"
    begin = 'return {"accuracy": run.figures("teach")'
    check = 'if temperature == 5:\n        raise UserError("too hot")\n    '
    script.write_text(script.read_text().replace(begin, check + begin))
    assert study(write_study(toy, TEMPERATURES, base=base), "--workers", workers) == 1
    found = results(base)
    assert [point["error"] for point in found["points"]] == [""] * 4 + ["stage soft: too hot"] * 2
    assert Counter(made(toy)) == {"soft": 2, "base": 1, "learn": 3, "score_base": 1, "score": 3}


def test_kill_9_then_the_same_command_goes_on(toy: Path, base: Path) -> None:
    file = write_study(toy, "grid: {student.width: [16, 24], student.seed: [1, 2]}\nset: {student.pause: 0.1}",
                       base=base)
    command = [sys.executable, "-m", "asr_distill.cli", "study", str(file), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    stages = base / "study" / "stages"
    deadline = time.monotonic() + 60
    while not (list(stages.glob("07_score-*")) and list(stages.glob("04_learn-*.partial/step2"))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in stages.glob("*/stage.json")}
    before = made(toy)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on where it was interrupted" in done.stderr
    after = made(toy)
    assert Counter(before + after) == {"learn": 5, "score": 4}  # one student was begun twice
    for path, changed in finished.items():
        assert path.stat().st_mtime_ns == changed
    steps = [json.loads(path.read_text())["figures"]["steps"] for path in stages.glob("04_learn-*/stage.json")]
    assert steps == ["01234"] * 4
    assert "point 4 of 4, width=24,seed=2: learn, score" in done.stderr


def test_the_studys_own_settings_win_over_the_bases(toy: Path) -> None:
    (toy / "quick.yaml").write_text("student: {width: 16, seed: 7}\n")
    (toy / "own.yaml").write_text("student: {width: 32}\n")
    run = ["run", str(toy / "run.py"), "--conf", str(toy / "quick.yaml"), "--exp-dir", str(toy / "exp")]
    assert cli.main([*run, "--device", "cpu"]) == 0
    made(toy)
    file = write_study(toy, f"conf: [{toy / 'own.yaml'}]\ngrid: {{distill.store.temperature: [2]}}\n",
                       base=toy / "exp")
    assert study(file, "--conf", str(toy / "quick.yaml")) == 0
    assert made(toy) == ["learn", "score"]  # teachers and soft targets are the base's
    record = json.loads((toy / "exp/study/some/points/temperature=2/04_learn/stage.json").read_text())
    assert {"student.width": 32, "student.seed": 7}.items() <= record["ingredients"]["settings"].items()


def test_wrong_settings_are_one_clear_message(toy: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def message(text: str, *extra: str, name: str = "some") -> str:
        assert study(write_study(toy, text, base=base, name=name), *extra) == 1
        return capsys.readouterr().err.splitlines()[-1]

    assert "did you mean 'width'" in message("grid: {student.widht: [1, 2]}")
    assert "point width=x" in message("grid: {student.width: [8, x]}")
    assert "must be a whole number" in message("grid: {student.width: [8, x]}")
    assert "did you mean 'grid'" in message("gird: {student.width: [8]}")
    assert "give a grid or points" in message("about: nothing")
    assert "two points are the same: width=8" in message("grid: {student.width: [8, 8]}")
    assert "no stage 'lern'" in message("grid: {student.width: [8]}\nstages: [lern]")
    assert "did you mean 'student'" in message("grid: {student.width: [8]}\nset: {studnet.seed: 1}")
    assert "x must be an axis" in message("grid: {student.width: [8]}\nplots: [{x: width, y: wer}]")
    assert "no such experiment" in message("grid: {student.width: [8]}", "--base", str(toy / "nowhere"))
    assert made(toy) == []
    # the base was made with other teachers than this command says, and the study does not ask for any
    found = message("grid: {student.width: [8]}", "--set", "teachers.count=4")
    assert "01_teach: this stage was made from something else" in found and "teachers.count changed (3 -> 4)" in found
    assert made(toy) == []
    assert study(write_study(toy, "grid: {student.width: [8]}\nset: {teachers.count: 4}", base=base)) == 0
    assert made(toy) == ["teach", "soft", "learn", "score"]
    with exclusive(base / "study"):
        assert "another run" in message("grid: {student.width: [32]}")


def test_named_values_points_and_no_base(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    file = write_study(toy, """
        grid:
          size:
            small: {student.width: 16}
            large: {student: {width: 32}, distill.loss.weight: 0.25}
        points:
          - {student.seed: 1}
          - {student.seed: 2, distill.store.temperature: 1}
        stages: [score_teachers, score_base, score]
        reference: {size: large}
        plots: [{x: parameters, y: frame_accuracy}, {x: size, y: recovered}]
    """)
    assert study(file) == 0
    found = results(toy / "exp" / "toy")
    assert [point["label"] for point in found["points"]] == [
        "seed=1,size=small", "seed=1,size=large", "seed=2,temperature=1,size=small", "seed=2,temperature=1,size=large"]
    assert found["points"][1]["set"] == ["student.seed=1", 'student={"width": 32}', "distill.loss.weight=0.25"]
    assert Counter(made(toy)) == {"teach": 1, "soft": 2, "base": 4, "learn": 4, "score_teachers": 1, "score_base": 4,
                                  "score": 4}
    # small, seed 1: baseline 50 + 1 + 2, student 62.1; the large one's baseline 50 + 1 + 4
    row = next(row for row in found["rows"] if row["system"] == "student" and row["parameters"] == 1600)
    assert row["figures"]["recovered"]["mean"] == pytest.approx(100 * (62.1 - 53) / (55 - 53))
    assert {path.name for path in (toy / "exp/toy/study/some").glob("*.png")} == {
        "frame_accuracy_parameters.png", "recovered_size.png"}
