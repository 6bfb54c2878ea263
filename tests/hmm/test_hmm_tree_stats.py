"""Statistics of phone states in context, against a plain loop over the frames and Kaldi's Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tree_toys import FLOOR, PHONES, SILENCE, kaldi_likelihood, spoken, toy_corpus, toy_hmm

from asr_distill.hmm.align import Alignment
from asr_distill.hmm.model import HmmModel, MonophoneTree, base_phone, stress_groups
from asr_distill.hmm.tree_stats import (
    accumulate_tree_stats,
    context_independent_phones,
    convert_alignment,
    frame_contexts,
    gaussian_log_likelihood,
)


@pytest.mark.parametrize(("phone", "base"), [
    ("AH0_B", "AH"), ("AH2", "AH"), ("B", "B"), ("B_B", "B"), ("S_S", "S"), ("SIL", "SIL"), ("SPN_S", "SPN"),
    ("IY1_E", "IY"), ("2", "2"), ("a4", "a4"), ("_I", "_I")])
def test_base_phone_has_neither_place_nor_stress(phone: str, base: str) -> None:
    assert base_phone(phone) == base


def test_variants_share_a_group_and_silence_is_found_in_all_positions() -> None:
    phones = ("SIL", "SPN_S", "SPN_B", "AH0_B", "AH1_E", "B_I", "B_B")
    assert stress_groups(phones) == (1, 2, 2, 4, 4, 6, 6)
    assert context_independent_phones(phones) == {1, 2, 3}
    assert context_independent_phones(phones, ("B",)) == {6, 7}


def test_statistics_are_those_of_a_loop_over_frames() -> None:
    features, alignment, offsets, contexts = toy_corpus()
    assert any(left == phone != 1 for left, phone, _, _ in contexts), "a phone that follows itself"
    stats = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
    frames = features.double().numpy()
    expected = {context: frames[[at == context for at in contexts]] for context in set(contexts)}
    assert [tuple(row) for row in stats.contexts.tolist()] == sorted(expected)
    for row, context in enumerate(sorted(expected)):
        assert stats.counts[row] == len(expected[context])
        assert stats.sums[row] == pytest.approx(expected[context].sum(0), abs=1e-12)
        assert stats.squares[row] == pytest.approx(np.square(expected[context]).sum(0), abs=1e-12)


def test_a_phone_begins_where_the_state_falls_and_utterances_do_not_touch() -> None:
    alignment, offsets, contexts = spoken([
        [(5, (1, 1, 1)), (5, (2, 1, 1)), (3, (1, 1, 1))],  # B B AH0
        [(3, (1, 2, 1))],  # AH0 alone, after an utterance that ends in AH0
        [],
        [(1, (1, 1)), (8, (1, 1, 1)), (1, (1, 1))]])  # SIL K SIL
    found, index = frame_contexts(alignment, offsets, SILENCE)
    assert [tuple(row) for row in found[index].tolist()] == contexts
    assert (0, 5, 5, 0) in contexts and (5, 5, 3, 2) in contexts and (0, 3, 0, 1) in contexts
    assert (1, 8, 1, 0) in contexts and (0, 1, 0, 1) in contexts
    known, index = frame_contexts(alignment, offsets)  # nothing context-independent
    assert (8, 1, 0, 1) in [tuple(row) for row in known[index].tolist()]


def test_utterances_without_alignment_are_left_out() -> None:
    features, alignment, offsets, contexts = toy_corpus(utterances=4)
    rows = slice(int(offsets[1]), int(offsets[2]))
    for array in (alignment.pdf_ids, alignment.phone_ids, alignment.states):
        array[rows] = -1
    features[rows] = float("nan")
    stats = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
    kept = contexts[: rows.start] + contexts[rows.stop :]
    assert [tuple(row) for row in stats.contexts.tolist()] == sorted(set(kept))
    assert stats.counts.sum() == len(kept) and np.isfinite(stats.sums).all()
    found, index = frame_contexts(alignment, offsets, SILENCE)
    assert (index[rows] == -1).all() and len(found) == len(set(kept))


def test_blocks_add_up_to_the_whole() -> None:
    features, alignment, offsets, _ = toy_corpus(utterances=6)
    whole = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
    cut = int(offsets[2])
    parts = [accumulate_tree_stats(
        features[rows], Alignment(alignment.pdf_ids[rows], alignment.phone_ids[rows], alignment.states[rows],
                                  alignment.aligned[which], 1), part, toy_hmm(), SILENCE)
        for rows, which, part in [(slice(cut), slice(2), offsets[:3]),
                                  (slice(cut, None), slice(2, None), offsets[2:] - cut)]]
    both = parts[0] + parts[1]
    assert (both.contexts == whole.contexts).all() and (both.counts == whole.counts).all()
    assert both.sums == pytest.approx(whole.sums, abs=1e-10) and both.squares == pytest.approx(whole.squares, abs=1e-10)


def test_likelihood_is_that_of_kaldis_gaussian() -> None:
    generator = np.random.default_rng(3)
    for count in (1, 2, 7, 40):  # one frame: every variance is floored
        frames = generator.normal(size=(count, 3)) * [1.0, 0.05, 4.0]
        packed = np.concatenate([[count], frames.sum(0), np.square(frames).sum(0)])
        assert float(gaussian_log_likelihood(packed, FLOOR)) == pytest.approx(kaldi_likelihood(frames), rel=1e-6)
    assert gaussian_log_likelihood(np.zeros((2, 7)), FLOOR).tolist() == [0.0, 0.0]


def test_what_does_not_fit_is_refused() -> None:
    features, alignment, offsets, _ = toy_corpus(utterances=2)
    with pytest.raises(ValueError, match="rows of features"):
        accumulate_tree_stats(features[1:], alignment, offsets, toy_hmm(), SILENCE)
    small = HmmModel(PHONES, (2,) * len(PHONES), MonophoneTree((2,) * len(PHONES)))
    with pytest.raises(ValueError, match="that the HMM lacks"):
        accumulate_tree_stats(features, alignment, offsets, small, SILENCE)


def test_an_alignment_is_read_under_another_tree() -> None:
    _, alignment, offsets, contexts = toy_corpus(utterances=3)
    alignment.phone_ids[offsets[1] : offsets[2]] = -1

    class Sum:
        kind, context_width, num_pdfs = "sum", 3, 1000

        def pdf(self, left: int, phone: int, right: int, state: int) -> int:
            return 100 * state + 30 * left + 5 * phone + right

        def to_dict(self) -> dict[str, int]:
            return {}

    hmm = HmmModel(PHONES, toy_hmm().states, Sum())
    converted = convert_alignment(alignment, offsets, hmm)
    # SIL's true neighbours count here: whether they matter is the tree's affair.
    inside = [at for at, context in enumerate(contexts) if context[1] not in SILENCE]
    expected = np.array([Sum().pdf(*context) for context in contexts])
    expected[offsets[1] : offsets[2]] = -1
    assert (converted.pdf_ids[inside] == expected[inside]).all() and converted.num_pdfs == 1000
    assert converted.pdf_ids.dtype == np.int32 and (converted.states == alignment.states).all()


def test_statistics_do_not_depend_on_the_device_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    features, alignment, offsets, _ = toy_corpus(utterances=4)
    whole = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
    monkeypatch.setattr("asr_distill.hmm.tree_stats._BLOCK", 7)
    blocks = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
    assert blocks.sums == pytest.approx(whole.sums, abs=1e-12)
    assert torch.equal(features, toy_corpus(utterances=4)[0]), "the caller's features stay as they are"
