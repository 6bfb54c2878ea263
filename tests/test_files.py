"""Files appear whole or not at all; damaged ones give one clear line."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asr_distill.errors import UserError
from asr_distill.files import atomic_path, file_digest, read_array, read_json, write_array, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="disk"), atomic_path(path) as temporary:
        temporary.write_text("half of")
        raise OSError("disk full")
    assert read_json(path) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["value.json"]


def test_a_full_disk_has_one_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy, safetensors and libsndfile raise errors of their own; all become ENOSPC with the file's name."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"No space left.*frames\.npy") as error, atomic_path(tmp_path / "frames.npy"):
        raise RuntimeError("100000 requested and 609 written")
    assert error.value.errno == errno.ENOSPC
    with pytest.raises(UserError, match="other"), atomic_path(tmp_path / "frames.npy"):
        raise UserError("other")


def test_arrays_round_trip_and_never_unpickle(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    write_array(path, array)
    np.testing.assert_array_equal(read_array(path, memory_map=True), array)
    np.save(path, np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a readable"):
        read_array(path)


@pytest.mark.parametrize("keep", [0, 5, 130])
def test_truncated_array_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npy"
    write_array(path, np.zeros(100))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"a\.npy: not a readable"):
        read_array(path)


def test_broken_json_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(UserError, match=r"x\.json: not valid JSON \(line 2"):
        read_json(path)


def test_digest(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 1_000_000)
    assert file_digest(path, "md5") == hashlib.md5(b"abc" * 1_000_000).hexdigest()
