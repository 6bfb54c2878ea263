"""Parts of the recipe mnist: the bias correction, errors, which images are trained on, settings, tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_distill.config import build, load_settings
from asr_distill.errors import UserError
from asr_distill.recipe_command import load_recipe
from local.mnist import Digits
from recipes.mnist import networks
from recipes.mnist.bias import best_bias, moved
from recipes.mnist.images import Errors, chosen_images, frames_of, load_digits, save_digits, scaling, training_data
from recipes.mnist.results import sign_test
from recipes.mnist.settings import MnistSettings, PartialSettings

ROOT = Path(__file__).resolve().parents[2]


def errors_at(logits: np.ndarray, labels: np.ndarray, digits: tuple[int, ...], bias: float) -> int:
    return int((moved(logits, digits, bias).argmax(1) != labels).sum())


@pytest.mark.parametrize("digits", [(3,), (7, 8), (0, 1, 2, 4, 5, 6, 7, 8, 9)])
@pytest.mark.parametrize("seed", range(5))
def test_the_bias_makes_as_few_errors_as_any(digits: tuple[int, ...], seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(200, 10)).astype(np.float32)
    labels = random.integers(0, 10, 200)
    logits[np.arange(200), labels] += 2
    logits[:, list(digits)] -= 4  # what the correction has to put right
    bias = best_bias(logits, labels, digits)
    tried = [errors_at(logits, labels, digits, value) for value in np.linspace(-15, 15, 6001)]
    assert errors_at(logits, labels, digits, bias) <= min(tried)
    assert errors_at(logits, labels, digits, bias) < errors_at(logits, labels, digits, 0.0)
    assert bias == pytest.approx(4, abs=1.5)


def test_the_bias_lies_in_the_middle_of_what_is_best() -> None:
    logits = np.zeros((3, 10), np.float32)
    labels = np.array([3, 0, 3])
    logits[0, 0], logits[1, 0], logits[2, 0] = 1.0, 5.0, 2.0  # 3 wins from 1, 5 and 2 on; only the middle one is no 3
    assert best_bias(logits, labels, [3]) == pytest.approx(3.5)
    assert errors_at(logits, labels, (3,), 3.5) == 0
    # all are 3s, or none is: any bias beyond the outermost step is right
    assert best_bias(logits, np.full(3, 3), [3]) > 5
    assert best_bias(logits, np.zeros(3, np.int64), [3]) < 1


def test_moving_a_bias_leaves_the_logits_as_they_were() -> None:
    logits = np.arange(20.0).reshape(2, 10)
    result = moved(logits, [7, 8], -3.0)
    assert np.array_equal(result - logits, [[0, 0, 0, 0, 0, 0, 0, -3, -3, 0]] * 2)
    assert np.array_equal(logits, np.arange(20.0).reshape(2, 10))


def test_errors_by_digit() -> None:
    logits = np.log(np.full((4, 10), 0.05) + 0.5 * np.eye(10)[[1, 2, 2, 9]])
    found = Errors.of(logits.astype(np.float32), np.array([1, 2, 5, 5], np.uint8))
    assert (found.images, found.errors, found.by_digit) == (4, 2, [0, 0, 0, 0, 0, 2, 0, 0, 0, 0])
    assert found.cross_entropy == pytest.approx(-(2 * math.log(0.55) + 2 * math.log(0.05)) / 4, rel=1e-6)


def test_which_images_are_trained_on() -> None:
    labels = np.array([3, 7, 8, 3, 1, 7, 3], np.uint8)
    assert chosen_images(labels, 0).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert chosen_images(labels, 2).tolist() == [0, 1, 2, 3, 4]
    assert chosen_images(labels, 2, (7, 8)).tolist() == [1, 2]
    assert chosen_images(labels, 9).tolist() == []


def test_pixels_become_frames_between_0_and_1(tmp_path: Path) -> None:
    digits = Digits(np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8), np.arange(6, dtype=np.uint8))
    save_digits({"train": digits}, tmp_path)
    loaded = load_digits(tmp_path, "train")
    data = training_data(loaded, np.array([4, 1]), scaling(20), torch.device("cpu"), torch.float32)
    assert data.image == (4, 5) and data.num_pdfs == 10
    assert data.train.tolist() == [1, 4] and not len(data.heldout)
    torch.testing.assert_close(data.rows, torch.from_numpy(digits.images.reshape(6, 20) / 255).float())
    assert torch.equal(frames_of(digits.images).raw.byte(), torch.from_numpy(digits.images).flatten(1))
    with pytest.raises(UserError, match="no vector to train on"):
        training_data(loaded, np.array([], np.int64), scaling(20), torch.device("cpu"), torch.float32)


def test_no_core_is_left_idle() -> None:
    at_once = networks.at_once
    assert (at_once(3, 2), at_once(4, 2), at_once(5, 2), at_once(24, 2)) == (3, 2, 3, 2)
    assert (at_once(1, 2), at_once(2, 16), at_once(3, 1)) == (1, 2, 1)
    assert at_once(7, 4) == 4  # seven at once would crowd the memory


def test_the_sign_test_is_exact() -> None:
    assert sign_test(0, 0) == sign_test(5, 5) == 1.0
    assert sign_test(0, 5) == sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(1, 3) == pytest.approx(2 * (1 + 4) / 16)
    assert sign_test(20, 80) < 1e-8


@pytest.mark.parametrize("extra", [[], ["mnist_quick.yaml"]])
def test_settings_files(extra: list[str]) -> None:
    settings = load_settings(MnistSettings, [ROOT / "conf" / name for name in ["mnist.yaml", *extra]])
    large, small = settings.large.network, settings.small.network
    assert (large.layers, large.width, small.layers, small.width) == (2, 1200, 2, 800)
    assert large.dropout and settings.large.trainer.max_norm and settings.large.trainer.augment.shift == 2
    plain = settings.small.trainer
    assert not (small.dropout or small.input_dropout or plain.max_norm or plain.weight_decay or plain.augment.shift)
    assert settings.distilled.temperature == 20 and not settings.distilled.trainer.augment.shift
    assert sorted(group.network.width for group in settings.sweep.groups.values()) == [30, 300]
    assert 3 not in settings.without_3s.digits and settings.only_7s_8s.digits == (7, 8)
    assert settings.runs.heldout == 0 and len(settings.runs.seeds) == (1 if extra else 3)


@pytest.mark.parametrize("tree, message", [
    ({"only_7s_8s": {"digits": [7, 10]}}, "digits must be different digits from 0 to 9"),
    ({"without_3s": {"heldout": 0}}, "heldout must be at least 1"),
    ({"runs": {"seeds": [1, 1]}}, "seeds must be a list of different numbers"),
    ({"sweep": {"groups": {"../a": {}}}}, "a name is made of letters"),
    ({"sweep": {"groups": {"a": {"temperatures": [0]}}}}, "temperatures must be different numbers > 0"),
    ({"distilled": {"temperature": 0}}, "temperature must be > 0"),
])
def test_wrong_settings(tree: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(MnistSettings, tree)
    with pytest.raises(ValueError, match="leave a digit out"):
        PartialSettings(corrected=tuple(range(10)))


def test_the_stages_are_listed() -> None:
    names = [stage.name for stage in load_recipe("mnist").stages]
    assert names == ["data", "large", "soft_targets", "small_plain", "distilled", "sweep", "without_3s", "only_7s_8s",
                     "report"]
