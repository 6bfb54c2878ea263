"""The cost model against runs whose costs follow known laws, GPUs' schedules by hand, and the command."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from asr_distill.cli import main
from asr_distill.errors import UserError
from asr_distill.plan.command import MEASURED
from asr_distill.plan.gpu import Gpu, Rate, load_gpu, throughput
from asr_distill.plan.measured import Cost, Run, load_runs, read_experiment, save_runs
from asr_distill.plan.model import Machine, fit_line, memory_line, power_law, predict, speedup
from asr_distill.plan.work import Data, Training, Work, training_work
from asr_distill.recipe_command import load_recipe
from recipes.settings import Settings
from recipes.work import work_of


def _run(hours: float, **seconds: float) -> Run:
    costs = {name: Cost(hours, value, 2, 2 * value, 1000, int(1e6 * hours)) for name, value in seconds.items()}
    return Run(f"h{hours:g}", "2 cores, cpu", {"train": hours, "tune": 0.3, "test": 2.0},
               {"train": round(300 * hours), "tune": 150, "test": 1000}, 500, 2500, costs)


def test_a_fixed_part_and_a_rate_are_found() -> None:
    line = fit_line([0.3, 1.2], [5 + 10 * 0.3, 5 + 10 * 1.2], [0.3, 1.2])
    assert line.fixed == pytest.approx(5) and line.rate == pytest.approx(10)


def test_more_runs_than_unknowns_weigh_relative_errors() -> None:
    x, y = [1.0, 10.0, 100.0], [11.0, 100.0, 1050.0]
    line = fit_line(x, y, x)

    def loss(fixed: float, rate: float) -> float:
        return sum(((fixed + rate * a - b) / b) ** 2 for a, b in zip(x, y, strict=True))

    best = loss(line.fixed, line.rate)
    for step in (-0.01, 0.01):
        assert loss(line.fixed + step, line.rate) > best and loss(line.fixed, line.rate + step) > best


@pytest.mark.parametrize(("x", "y", "at", "expected"), [
    ([2.0, 2.1], [9.0, 6.0], 4.2, 12.0),  # as much work in both: the larger run's rate
    ([1.0, 2.0], [1.0, 4.0], 4.0, 8.0),  # a fixed part would be negative
    ([1.0, 2.0], [4.0, 3.0], 4.0, 3.0),  # a rate would be negative
    ([0.0, 0.0], [4.0, 5.0], 0.0, 5.0),  # a stage that does not grow
    ([1.0, 2.0], [0.0, 0.0], 4.0, 0.0),
    ([3.0], [6.0], 9.0, 18.0),
])
def test_what_runs_do_not_tell_the_largest_decides(x: list[float], y: list[float], at: float, expected: float) -> None:
    assert fit_line(x, y, list(range(len(x))))(at) == pytest.approx(expected)


def test_stages_share_out_over_cores_as_they_can() -> None:
    runs = [_run(0.3, lang=40, align=0.3, teachers=3), _run(1.2, lang=40, align=1.2, teachers=12)]
    work = {"lang": Work(0.0), "align": Work(5.3, "cores"), "teachers": Work(5.3, "gpus"), "unknown": Work(1.0)}
    by_name = {item.stage: item for item in predict(runs, work, 5.3, Machine(2))}
    assert list(by_name) == ["lang", "align", "teachers"]
    assert by_name["lang"].seconds == pytest.approx(40) and by_name["align"].seconds == pytest.approx(5.3)
    assert by_name["teachers"].seconds == pytest.approx(53) and by_name["teachers"].gpus == 0
    assert by_name["teachers"].bytes == by_name["align"].bytes == pytest.approx(5.3e6)
    assert by_name["lang"].peak_bytes == pytest.approx(1000)
    many = {item.stage: item for item in predict(runs, work, 5.3, Machine(10))}
    assert many["lang"].seconds == pytest.approx(40) and many["align"].seconds == pytest.approx(5.3 / speedup(10, 2))
    assert speedup(10, 2) == pytest.approx(1 + 0.8 * 4) and speedup(1, 2) == 0.5


def test_memory_of_one_run_does_not_grow_with_the_data() -> None:
    assert memory_line([5.0], [2e9])(960) == 2e9
    assert memory_line([1.0, 2.0], [2e9, 3e9])(10) == pytest.approx(11e9)


def test_trainings_are_dealt_out_over_cards() -> None:
    gpu = Gpu("card", "here", (Rate(1_000_000, 1000.0, "tdnn"),), (Rate(1_000_000, 10_000.0),))
    jobs = [Training("tdnn", 1_000_000, frames) for frames in (3000.0, 2000.0, 2000.0, 1000.0)]
    assert gpu.seconds(training_work(jobs), 1) == pytest.approx(8)
    assert gpu.seconds(training_work(jobs), 2) == pytest.approx(4)  # 3 + 1, 2 + 2
    assert gpu.seconds(training_work(jobs), 4) == pytest.approx(3)
    assert gpu.seconds(training_work(jobs, asked=True), 4) == pytest.approx(0.2)
    slow = Gpu("card", "here", gpu.training, (Rate(1_000_000, 10.0),))  # measured beside others: as fast as trained
    assert slow.seconds(training_work(jobs, asked=True), 1) == pytest.approx(8)
    stages = predict([_run(1.0, teachers=9)], {"teachers": training_work(jobs)}, 1.0, Machine(2, 2, gpu))
    assert stages[0].seconds == pytest.approx(4) and stages[0].gpus == 2


def test_a_rate_lies_between_the_sizes_measured() -> None:
    rates = [Rate(1_000_000, 1000.0, "tdnn"), Rate(4_000_000, 1000.0, "tdnn"), Rate(2_000_000, 9.0, "attention")]
    assert throughput(rates, Training("tdnn", 2_000_000, 1.0)) == pytest.approx(math.sqrt(1e9 * 4e9))
    assert throughput(rates, Training("tdnn", 64_000_000, 1.0)) == pytest.approx(4e9)
    assert throughput(rates, Training("attention", 99, 1.0)) == pytest.approx(18e6)
    assert throughput(rates, Training("conv_tdnn", 1_000_000, 1.0)) == pytest.approx(1e9)  # never measured: any kind


def test_pdfs_grow_as_a_power_up_to_the_leaves() -> None:
    assert power_law([1.0, 4.0], [100.0, 200.0], 16.0) == pytest.approx(400)
    assert power_law([1.0, 4.0], [100.0, 200.0], 1600.0, 3000) == 3000
    assert power_law([1.0], [100.0], 50.0) == 100


def test_work_follows_hours_epochs_and_teachers() -> None:
    data = Data({"train": 5.0, "tune": 0.3, "test": 2.0}, {"train": 1500, "tune": 150, "test": 1000}, 500)
    settings = Settings()
    once = work_of(settings, data)
    double = work_of(settings, dataclasses.replace(data, hours={**data.hours, "train": 10.0}))
    assert double["teachers"].amount == pytest.approx(2 * once["teachers"].amount)
    assert double["decode_student"] == once["decode_student"] and double["lang"] == once["lang"]
    assert len(once["teachers"].trainings) == 3 and once["soft_targets"].asked
    frames = 5.0 * 360_000 * 0.95 * settings.student.trainer.epochs
    assert once["student"].trainings[0].frames == pytest.approx(frames)
    widened = dataclasses.replace(settings, student=dataclasses.replace(
        settings.student, network=dataclasses.replace(settings.student.network, width=1024)))
    assert work_of(widened, data)["student"].amount > 2 * once["student"].amount
    assert set(once) <= {item.name for item in load_recipe("mini_librispeech").stages}


def test_runs_are_kept_and_read(tmp_path: Path) -> None:
    runs = [_run(0.3, lang=40.5), _run(1.2, lang=41)]
    save_runs(tmp_path / "runs.json", runs)
    assert load_runs(tmp_path / "runs.json") == runs
    (tmp_path / "other.json").write_text('{"runs": [1]}')
    with pytest.raises(UserError, match="not a file of measured runs"):
        load_runs(tmp_path / "other.json")
    (tmp_path / "gpu.json").write_text("{}")
    with pytest.raises(UserError, match="not a GPU's measured rates"):
        load_gpu(tmp_path / "gpu.json")


def _experiment(exp: Path, hours: float, **more: Any) -> None:
    """Stage records of a finished run whose every stage took 10 s an hour."""
    recipe = load_recipe("mini_librispeech")
    figures: dict[str, Any] = {
        "corpus": {"train": {"hours": hours, "utterances": round(300 * hours)},
                   "tune": {"hours": 0.3, "utterances": 90}, "test": {"hours": 2.0, "utterances": 900}},
        "tri3b": {"pdfs": 300}}
    for item in recipe.stages:
        folder = recipe.directory(exp, item)
        folder.mkdir(parents=True)
        record = {"ingredients": {"settings": {"student.network.width": 128, "student.network.layers": 2}},
                  "figures": figures.get(item.name, {}), "device": "cpu", "cpus": 2, "cpu_seconds": 20 * hours,
                  "seconds": 10 * hours, "peak_bytes": 10**9, "bytes": int(10**6 * hours)} | more
        (folder / "stage.json").write_text(json.dumps(record))


def test_experiments_are_read_planned_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for hours in (0.5, 1.0, 2.0):
        _experiment(tmp_path / f"h{hours}", hours)
    run = read_experiment(load_recipe("mini_librispeech"), tmp_path / "h1.0")
    assert run.train_hours == 1.0 and run.pdfs == 300 and run.stages["teachers"].seconds == 10
    assert "clusters" not in run.stages  # specialists are not planned
    folders = [str(tmp_path / f"h{hours}") for hours in (2.0, 0.5, 1.0)]
    kept = tmp_path / "kept.json"
    assert main(["plan", "mini_librispeech", "--from", *folders, "--check", "--save", str(kept)]) == 0
    printed = capsys.readouterr().out
    assert "2.00 h of training speech, predicted from runs of 0.50, 1.00 h" in printed
    row = next(line for line in printed.splitlines() if line.startswith("tri3b"))
    assert row.split()[1:4] == ["0:20", "0:20", "+0"]
    assert main(["plan", "mini_librispeech", "--measured", str(kept), "--hours", "20", "--gpus", "2"]) == 0
    printed = capsys.readouterr().out
    assert "20 h of training speech, 300 pdfs, on 2 cores and 2 x H100" in printed


def test_the_kept_runs_predict_the_largest_within_thirty_per_cent(capsys: pytest.CaptureFixture[str]) -> None:
    """What docs/scale.md says of conf/measured/two_cores.json."""
    assert main(["plan", "mini_librispeech", "--check"]) == 0
    printed = capsys.readouterr().out
    assert "5.31 h of training speech, predicted from runs of 0.30, 1.19 h" in printed
    predicted, measured, error, cpu = printed.splitlines()[-1].split()[1:5]
    assert (predicted, measured) == ("58:49", "1:12:29")
    assert abs(int(error)) <= 30 and abs(int(cpu)) <= 30


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _experiment(tmp_path / "one", 1.0)
    _experiment(tmp_path / "shared", 1.0, alone=False)
    wrong = [(["plan", "mnist", "--hours", "5"], "does not say how much work"),
             (["plan", "mini_librispeech", "--from", str(tmp_path / "none"), "--hours", "5"], "not finished"),
             (["plan", "mini_librispeech", "--from", str(tmp_path / "one"), "--check"], "at least two"),
             (["plan", "mini_librispeech", "--from", str(tmp_path / "shared"), "--hours", "5"], "without --processes"),
             (["plan", "mini_librispeech", "--from", str(tmp_path / "one")], "--hours"),
             (["plan", "mini_librispeech", "--from", str(tmp_path / "one"), "--hours", "0"], "above 0")]
    for arguments, message in wrong:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error


def test_the_kept_card_has_rates() -> None:
    card = load_gpu(MEASURED / "h100.json")
    assert {rate.kind for rate in card.training} == {"feed_forward", "tdnn", "conv_tdnn", "attention"}
