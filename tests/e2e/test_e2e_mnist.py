"""The recipe mnist on a part of the real images: the paper's effects are there, it resumes, and fails clearly."""

from __future__ import annotations

import gzip
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from runner import kill_when, measured, results, run

from asr_distill.files import read_json
from local.mnist import PREFIXES, read_mnist

pytestmark = pytest.mark.slow
SETTINGS = Path(__file__).with_name("mnist.yaml")
TRAIN, TEST = 4000, 3000  # images


@pytest.fixture(scope="module")
def images(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first so many images of each split, in MNIST's own form."""
    if not (shared / "mnist").is_dir():
        pytest.skip(f"needs {shared / 'mnist'} (MNIST's four idx files)")
    folder = tmp_path_factory.mktemp("mnist")
    for (split, digits), count in zip(read_mnist(shared / "mnist").items(), (TRAIN, TEST), strict=True):
        for kind, array in (("images-idx3", digits.images[:count]), ("labels-idx1", digits.labels[:count])):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / f"{PREFIXES[split]}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))
    return folder


def settings(images: Path) -> list[str]:
    return ["--conf", str(SETTINGS), "--set", f"data.dir={images}"]


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exp = tmp_path_factory.mktemp("finished") / "exp"
    run(exp, *settings(images), recipe="mnist")
    return exp


def errors(exp: Path) -> dict[str, dict[str, int]]:
    """System -> split -> errors."""
    return {system["name"]: {split: scores["errors"] for split, scores in system["splits"].items()}
            for system in results(exp)["systems"]}


def results_threes(exp: Path) -> int:
    """How many test images are 3s."""
    return results(exp)["data"]["test_3s"]["utterances"]


def test_the_papers_effects(finished: Path) -> None:
    found = errors(finished)
    test = {name: splits["test"] for name, splits in found.items()}
    assert test["large_1"] < 0.8 * test["small_plain_1"]
    # much of the large net's gain is handed on
    assert test["distilled_1"] < test["small_plain_1"] - 0.4 * (test["small_plain_1"] - test["large_1"])
    # 3s that were never seen: some are right all the same, most of them once their bias is
    threes = {name: found[name]["test_3s"] for name in ("without_3s_1", "without_3s_corrected_1")}
    assert threes["without_3s_corrected_1"] < 0.75 * threes["without_3s_1"] < 0.7 * results_threes(finished)
    assert test["without_3s_corrected_1"] < test["without_3s_1"]
    # two digits of ten seen: more than half of all images are right, where 7s and 8s are two in ten
    assert test["only_7s_8s_corrected_1"] < min(0.45 * TEST, 0.85 * test["only_7s_8s_1"])
    assert test["narrow_T2.5_1"] < test["narrow_T20_1"]


def test_the_bias_is_chosen_on_training_images(finished: Path) -> None:
    for stage in ("07_without_3s", "08_only_7s_8s"):
        (figures,) = read_json(finished / stage / "stage.json")["figures"].values()
        before, after = figures["splits"]["heldout"], figures["corrected"]["heldout"]
        assert before["images"] == 800 and after["errors"] < before["errors"]
        assert (figures["bias"] > 0) == (stage == "07_without_3s")


def test_every_system_is_in_the_results(finished: Path) -> None:
    found = results(finished)
    assert {system["name"]: system["role"] for system in found["systems"]} == {
        "large_1": "teacher", "small_plain_1": "baseline", "distilled_1": "student", "narrow_plain_1": "baseline",
        "narrow_T2.5_1": "student", "narrow_T20_1": "student", "without_3s_1": "student",
        "without_3s_corrected_1": "student", "only_7s_8s_1": "student", "only_7s_8s_corrected_1": "student"}
    assert found["data"]["train"]["utterances"] == TRAIN and found["data"]["test"]["utterances"] == TEST
    assert found["seeds"] == [1] and "data" not in found["settings"]
    page = (finished / "RESULTS.md").read_text()
    for title in ("small net, distilled without 3s", "Errors by temperature", "exact sign test"):
        assert title in page
    assert (finished / "temperature.png").stat().st_size > 5000
    assert "large net" in (finished / "RESULTS.txt").read_text()


def test_a_second_run_does_nothing(finished: Path, images: Path) -> None:
    again = run(finished, *settings(images), recipe="mnist")
    assert again.stderr.count("done before, nothing changed") == 9


def test_a_changed_temperature_reruns_only_what_depends_on_it(finished: Path, images: Path, tmp_path: Path) -> None:
    exp = tmp_path / "moved"
    shutil.copytree(finished, exp)
    log = run(exp, *settings(images), "--set", "distilled.temperature=8", "--set", "distilled.trainer.epochs=1",
              recipe="mnist").stderr
    assert log.count("done before, nothing changed") == 7
    assert "setting distilled.temperature changed (20.0 -> 8.0)" in log


def test_kill_9_then_the_same_results(finished: Path, images: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    extra = [*settings(images), "--set", "large.trainer.checkpoint_updates=50"]
    for folder in ("02_large.partial/large_1/work/checkpoint.safetensors",
                   "06_sweep.partial/narrow_plain_1/training.json"):  # in the middle of a network, and between two
        kill_when(exp, (exp / folder).exists, extra, 900, recipe="mnist")
    log = run(exp, *extra, recipe="mnist").stderr
    assert "stage 06 sweep: Nets of other widths, on labels and on posteriors at each temperature. (going on" in log
    assert measured(exp) == measured(finished)


def test_faults_are_one_clear_message(images: Path, tmp_path: Path) -> None:
    def message(*extra: str) -> str:
        done = run(tmp_path / "exp", "--conf", str(SETTINGS), *extra, recipe="mnist", check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr[done.stderr.index("asr-distill: error:"):]

    broken = tmp_path / "broken"
    shutil.copytree(images, broken)
    archive = broken / "train-images-idx3-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:-100])
    assert f"{archive}: truncated; delete it" in message("--set", f"data.dir={broken}")
    assert "--set data.dir=PATH" in message("--set", f"data.dir={tmp_path / 'nowhere'}")
    assert "no vector to train on" in message("--set", f"data.dir={images}", "--set", f"runs.heldout={TRAIN}",
                                              "--set", "runs.workers=2")
    assert "did you mean 'distilled'" in message("--set", "distiled.temperature=3")
