"""Which utterances train, tune and are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_distill.errors import UserError
from local.mini_librispeech import choose_splits, find_resources
from local.resources import Resources


def _subset(root: Path, name: str, speakers: range, utterances: int = 3) -> list[str]:
    ids = []
    for speaker in speakers:
        folder = root / name / str(speaker) / "1"
        folder.mkdir(parents=True)
        for number in range(utterances):
            ids.append(f"{speaker}-1-{number:04d}")
            (folder / f"{ids[-1]}.flac").touch()
    return ids


def test_dev_clean_beside_dev_clean_2(tmp_path: Path) -> None:
    everything = _subset(tmp_path, "dev-clean", range(10))
    second = _subset(tmp_path, "dev-clean-2", range(4), utterances=2)
    splits = choose_splits(tmp_path, None)
    assert splits.utterance_ids["dev_clean_2"] == set(second)
    assert splits.utterance_ids["tune"] == set(everything) - set(second)
    assert splits.subsets == {"train": "train-clean-5", "tune": "dev-clean", "dev_clean_2": "dev-clean"}


def test_ids_from_a_file(tmp_path: Path) -> None:
    everything = _subset(tmp_path, "dev-clean", range(10))
    (tmp_path / "ids").write_text("\n".join(everything[:5]))
    splits = choose_splits(tmp_path, tmp_path / "ids")
    assert splits.utterance_ids["dev_clean_2"] == set(everything[:5])
    (tmp_path / "ids").write_text("9999-1-0000\n")
    with pytest.raises(UserError, match="1 utterances of dev-clean-2 are not here, for example 9999-1-0000"):
        choose_splits(tmp_path, tmp_path / "ids")


def test_dev_clean_2_alone_gives_up_six_speakers(tmp_path: Path) -> None:
    everything = _subset(tmp_path, "dev-clean-2", range(20))
    splits = choose_splits(tmp_path, None)
    assert splits.utterance_ids["tune"] == {name for name in everything if int(name.split("-")[0]) < 6}
    assert splits.utterance_ids["tune"] | splits.utterance_ids["dev_clean_2"] == set(everything)
    assert not splits.utterance_ids["tune"] & splits.utterance_ids["dev_clean_2"]


def test_nothing_to_report_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither dev-clean-2 nor dev-clean is here"):
        choose_splits(tmp_path, None)
    _subset(tmp_path, "dev-clean", range(2))
    with pytest.raises(UserError, match=r"--set corpus\.test_ids=FILE"):
        choose_splits(tmp_path, None)


def test_a_moved_corpus_is_found_by_the_setting(tmp_path: Path) -> None:
    root = tmp_path / "a" / "LibriSpeech"
    _subset(root, "dev-clean-2", range(8))
    resources, _ = find_resources(tmp_path / "a", None, "data", "")  # the folder above is understood too
    assert resources.root == root
    resources.save(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(UserError, match="no longer here"):
        Resources.load(tmp_path, None)
    for given in (tmp_path / "b", tmp_path / "b" / "LibriSpeech"):
        assert Resources.load(tmp_path, given).root == tmp_path / "b" / "LibriSpeech"
