"""What is handed to another process comes out the same, without copies of what lies on disk, and runs no code."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.targets import HardTargets
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.dense_targets import StoredDenseTargets
from asr_distill.parallel.parcel import ARRAYS, HEAD, pack, unpack

CPU = torch.device("cpu")


def sent(value: object, folder: Path) -> object:
    pack(value, folder / "parcel")
    return unpack(folder / "parcel", CPU)


def test_plain_values_and_containers(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, "text", math.inf], (1, 2): {3, 4}, "path": Path("/x/y"), "dtype": torch.bfloat16,
             "device": CPU, "odd": OrderedDict(b=1, a=2), "numpy": np.float64(0.1), 5: frozenset({"z"})}
    found = sent(value, tmp_path)
    assert found == value and isinstance(found, dict)
    assert list(found["odd"]) == ["b", "a"] and isinstance(found["odd"], OrderedDict)


@pytest.mark.parametrize("tensor", [
    torch.randn(5, 3).bfloat16(), torch.arange(7), torch.tensor(2.5, dtype=torch.float64), torch.empty(0, 4),
    torch.randn(4, 6).t()[1:], torch.tensor([True, False])], ids=str)
def test_tensors(tensor: torch.Tensor, tmp_path: Path) -> None:
    found = sent([tensor, "between", tensor], tmp_path)
    assert isinstance(found, list)
    for each in (found[0], found[2]):
        assert torch.equal(each, tensor) and each.dtype == tensor.dtype
    found[0].zero_()  # whoever writes writes for himself
    assert torch.equal(unpack(tmp_path / "parcel", CPU)[0], tensor)


def test_a_network_computes_the_same_after_its_files_are_gone(tmp_path: Path) -> None:
    network = build_network(NetworkConfig(kind="tdnn", layers=2, width=16, final=8, norm="batch", dropout=0.1), 6, 5)
    network.eval()
    found = sent(network, tmp_path)
    for path in (tmp_path / "parcel").iterdir():
        path.unlink()
    assert isinstance(found, type(network)) and not found.training
    windows = torch.randn(3, network.left + 4 + network.right, 6)
    assert torch.equal(found(windows), network(windows))
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_memory_maps_go_by_name(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    np.save(tmp_path / "scores.npy", scores)
    mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
    targets = StoredDenseTargets(mapped, 2.0, DistillConfig(hard_weight=0.5), torch.arange(50) % 7)
    found = sent([targets, mapped[10:], np.arange(3)], tmp_path)
    assert isinstance(found, list)
    assert (tmp_path / "parcel" / ARRAYS).stat().st_size < scores.nbytes + 50 * 8  # a piece of a map is copied
    assert np.array_equal(found[1], scores[10:]) and np.array_equal(found[2], np.arange(3))
    logits, frames = torch.randn(9, 7), torch.arange(3, 12)
    assert torch.equal(found[0].to(CPU).loss(logits, frames), targets.to(CPU).loss(logits, frames))


def test_settings_and_targets(tmp_path: Path) -> None:
    config = TrainerConfig(batch=7, learning_rate=1 / 3)
    found = sent((config, HardTargets(torch.arange(4))), tmp_path)
    assert isinstance(found, tuple)
    assert found[0] == config and torch.equal(found[1].pdf_ids, torch.arange(4))


@dataclass
class Foreign:
    value: int = 1


def test_foreign_objects_are_refused(tmp_path: Path) -> None:
    for number, value in enumerate((Foreign(), len, lambda: 1, np.array([None]))):
        with pytest.raises(TypeError):
            pack([value], tmp_path / str(number))
    holder = HardTargets(torch.arange(4))
    holder.myself = holder  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="holds itself"):
        pack(holder, tmp_path / "cycle")
    pack(None, tmp_path / "other")
    for module, name in (("subprocess", "Popen"), ("asr_distill.cli", "main"), ("torch.nn", "Module")):
        (tmp_path / "other" / HEAD).write_text(json.dumps(["object", module, name, ["dict", []]]))
        with pytest.raises(TypeError, match="is no class"):
            unpack(tmp_path / "other", CPU)
