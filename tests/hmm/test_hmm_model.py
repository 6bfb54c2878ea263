"""HMM model, tree, transitions and alignment files."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from asr_distill.errors import UserError
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.model import HmmModel, MonophoneTree, monophone_model, stress_groups
from asr_distill.hmm.transitions import TransitionTable, estimate_transitions

PHONES = ("SIL", "SPN", "AH0", "AH1", "B")


def test_stressed_phones_share_pdfs_but_not_others() -> None:
    assert stress_groups(PHONES) == (1, 2, 3, 3, 5)
    tree = monophone_model(PHONES, share_stress=True).tree
    assert tree.num_pdfs == 12
    assert [tree.pdf(0, 3, 0, s) for s in range(3)] == [tree.pdf(7, 4, 9, s) for s in range(3)] == [6, 7, 8]
    assert tree.pdf(0, 5, 0, 2) == 11
    assert monophone_model(PHONES).num_pdfs == 15


def test_a_piece_has_more_states_for_more_letters() -> None:
    pieces = ("SIL", "SPN", "A", "▁B", "|A1|", "▁THE", "ATION")
    assert monophone_model(pieces, states=2, letter_states=1, share_stress=True).states == (2, 2, 2, 2, 3, 4, 6)
    assert monophone_model(pieces, letter_states=2).states == (3, 3, 3, 3, 5, 7, 11)
    assert monophone_model(pieces).states == (3,) * 7
    assert stress_groups(pieces) == (1, 2, 3, 4, 5, 6, 7)
    assert monophone_model(PHONES, letter_states=1).states == (3,) * 5  # phones' names are no letters


def test_phones_with_different_numbers_of_states_cannot_share() -> None:
    with pytest.raises(ValueError, match="cannot share"):
        MonophoneTree((3, 2), (1, 1))


def test_model_comes_back_from_disk(tmp_path: Path) -> None:
    model = dataclasses.replace(monophone_model(PHONES, share_stress=True),
                                self_loops={(1, 0, 0): 0.875, (4, 2, 8): 0.1})
    model.save(tmp_path)
    assert HmmModel.load(tmp_path) == model


@pytest.mark.parametrize("text", ["{", "{}", '{"tree": {"kind": "oak"}}'])
def test_a_damaged_model_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "hmm.json").write_text(text)
    with pytest.raises(UserError, match=r"hmm\.json"):
        HmmModel.load(tmp_path)


def test_table_looks_up_what_the_model_says() -> None:
    model = dataclasses.replace(monophone_model(PHONES), self_loops={(3, 1, 7): 0.5, (5, 2, 14): 0.9})
    loop, forward = TransitionTable(model).logs(np.array([3, 5, 1]), np.array([1, 2, 0]), np.array([7, 14, 0]))
    assert np.exp(loop) == pytest.approx([0.5, 0.9, 0.75])
    assert np.exp(forward) == pytest.approx([0.5, 0.1, 0.25])
    assert model.log_transitions(5, 2, 14) == pytest.approx((math.log(0.9), math.log(0.1)))


def test_self_loops_are_the_share_of_frames_that_stay() -> None:
    # Phone 3 state 1: 6 frames, 4 stay. Phone 1 state 0: 3 frames: too few. Phone 5 state 2: always stays: floored.
    phones = np.array([3] * 6 + [1] * 3 + [5] * 5)
    states = np.array([1] * 6 + [0] * 3 + [2] * 5)
    pdfs = np.array([7] * 6 + [0] * 3 + [14] * 5)
    stays = np.array([True] * 4 + [False] * 2 + [True, True, False] + [True] * 5)
    loops = estimate_transitions(monophone_model(PHONES), phones, states, pdfs, stays).self_loops
    assert loops == {(3, 1, 7): pytest.approx(4 / 6), (5, 2, 14): pytest.approx(0.99)}


def make_alignment() -> Alignment:
    return Alignment(np.array([0, 1, -1], np.int32), np.array([1, 1, -1], np.int16), np.array([0, 1, -1], np.int8),
                     np.array([True, False]), 15, {"share_aligned": 2 / 3})


def test_alignment_comes_back_from_disk(tmp_path: Path) -> None:
    make_alignment().save(tmp_path)
    back = Alignment.load(tmp_path)
    for name in ("pdf_ids", "phone_ids", "states", "aligned"):
        array, expected = getattr(back, name), getattr(make_alignment(), name)
        assert array.dtype == expected.dtype and (array == expected).all()
    assert back.num_pdfs == 15 and back.figures == {"share_aligned": 2 / 3}


def test_an_alignment_whose_files_do_not_fit_is_refused(tmp_path: Path) -> None:
    make_alignment().save(tmp_path)
    np.save(tmp_path / "states.npy", np.zeros(2, np.int8))
    with pytest.raises(UserError, match="damaged alignment"):
        Alignment.load(tmp_path)
    (tmp_path / "states.npy").unlink()
    with pytest.raises(UserError, match=r"states.npy: no such file"):
        Alignment.load(tmp_path)
