"""Transfer sets that are not the training set: views of it, audio joined to it, utterances without alignment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.config import DataConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.fit import train_accuracy
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.spread import hidden_alignment, spread_alignment
from asr_distill.acoustic.trainer import train
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.soft_store import SoftStore
from asr_distill.distill.targets import SoftTargets
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore, Utterance
from asr_distill.features.views import JoinedStores, StoreViews
from asr_distill.hmm.align import Alignment

CPU = torch.device("cpu")
CONFIG = DataConfig(heldout_fraction=0.25)
CONTEXT = {"left": 3, "right": 2}


def renamed(store: FrameStore, prefix: str, *, words: bool = True) -> FrameStore:
    store.utterances = [Utterance(prefix + u.id, u.speaker, u.words if words else (), u.seconds)
                        for u in store.utterances]
    return store


def louder() -> FrameStore:
    """The frames of synthetic(), row for row, in other conditions."""
    store, _, _ = synthetic(noise=1.5)
    return store


def owners(frames: torch.Tensor, store: FrameStore) -> set[int]:
    return set((np.searchsorted(store.offsets, frames.numpy(), "right") - 1).tolist())


def test_views_are_split_as_the_first_store_is() -> None:
    store, alignment, cmvn = synthetic(unaligned=(4,))
    views = StoreViews([store, louder()])
    plain = TrainingData.build(store, alignment, cmvn, CONFIG, CPU, **CONTEXT)
    data = TrainingData.build(views, alignment, cmvn, CONFIG, CPU, **CONTEXT)
    count, utterances = store.num_frames, len(store.utterances)
    assert data.num_frames == 2 * count and data.offsets.tolist() == views.offsets.tolist()
    for both, one in ((data.train, plain.train), (data.heldout, plain.heldout)):
        assert both.tolist() == [*one.tolist(), *(one + count).tolist()]
    assert data.pdf_ids.tolist() == 2 * alignment.pdf_ids.tolist()
    third = TrainingData.build(views, alignment, cmvn, replace(CONFIG, train_fraction=0.3), CPU, **CONTEXT)
    used = owners(third.train, views)
    assert used == used | {index % utterances + utterances for index in used} and len(used) < utterances
    assert torch.equal(third.heldout, data.heldout)
    frame = count + 17  # a window of the second view holds that view's frames
    index = int(np.searchsorted(views.offsets, frame, "right")) - 1
    expected = cmvn.apply(views.features(index, CPU))[frame - views.offsets[index]]
    assert torch.equal(data.windows(torch.tensor([frame]), 0, 0)[0, 0], expected)


def test_joined_audio_is_trained_on_and_never_held_out() -> None:
    store, alignment, cmvn = synthetic()
    other, theirs, _ = synthetic(utterances=5, seed=1)
    spoken_too = {store.utterances[i].words for i in (0, 1, 2, 3, 4)}  # the other store's texts are WORD0 to WORD4
    joined = JoinedStores([store, renamed(other, "x-")])
    plain = TrainingData.build(store, alignment, cmvn, CONFIG, CPU, **CONTEXT)
    whole = Alignment(np.concatenate([alignment.pdf_ids, theirs.pdf_ids]),
                      np.concatenate([alignment.phone_ids, theirs.phone_ids]),
                      np.concatenate([alignment.states, theirs.states]),
                      np.concatenate([alignment.aligned, theirs.aligned]), alignment.num_pdfs)
    data = TrainingData.build(joined, whole, cmvn, CONFIG, CPU, **CONTEXT)
    assert torch.equal(data.heldout, plain.heldout)
    held = {store.utterances[i].words for i in owners(plain.heldout, store)}
    assert held & spoken_too  # else the test shows nothing
    added = owners(data.train, joined) - owners(plain.train, store)
    assert added == {12 + i for i in range(5) if other.utterances[i].words not in held}


def test_untranscribed_audio_is_trained_on_where_asked_for() -> None:
    store, alignment, cmvn = synthetic(unaligned=(2, 7))
    other, _, _ = synthetic(utterances=4, seed=1)
    joined = JoinedStores([store, renamed(other, "x-", words=False)])
    plain = TrainingData.build(store, alignment, cmvn, CONFIG, CPU, **CONTEXT)
    for unaligned in (False, True):
        data = TrainingData.build(joined, alignment, cmvn, CONFIG, CPU, unaligned=unaligned, **CONTEXT)
        assert torch.equal(data.heldout, plain.heldout)
        expected = owners(plain.train, store) | ({2, 7, 12, 13, 14, 15} if unaligned else set())
        assert owners(data.train, joined) == expected
        assert len(data.train) == sum(np.diff(joined.offsets)[list(expected)])  # all frames of each
        assert torch.equal(data.pdf_frequencies(), plain.pdf_frequencies())
    assert (data.pdf_ids[store.num_frames:] == -1).all()
    network = build_network(KINDS["tdnn"], 6, 8).eval()
    assert train_accuracy(network, data, 12) == train_accuracy(network, plain, 12)  # of what has senones
    alone = TrainingData.build(store, alignment, cmvn, CONFIG, CPU, unaligned=True, **CONTEXT)
    assert owners(alone.train, store) == owners(plain.train, store) | {2, 7}


def test_an_unaligned_copy_of_a_heldout_text_is_not_trained_on() -> None:
    store, alignment, cmvn = synthetic()
    held = min(owners(TrainingData.build(store, alignment, cmvn, CONFIG, CPU, **CONTEXT).heldout, store))
    other, _, _ = synthetic(utterances=12, seed=1)
    joined = JoinedStores([store, renamed(other, "sp0.9-")])
    data = TrainingData.build(joined, alignment, cmvn, CONFIG, CPU, unaligned=True, **CONTEXT)
    assert held + 12 not in owners(data.train, joined)
    assert len(owners(data.train, joined)) == 2 * len(owners(data.train, store) - set(range(12, 24)))


def test_alignments_are_spread_over_views_of_joined_stores() -> None:
    store, alignment, _ = synthetic(utterances=3)
    other, _, _ = synthetic(utterances=2, seed=1)
    noisy, _, _ = synthetic(utterances=3, noise=2.0)
    more, _, _ = synthetic(utterances=2, seed=1, noise=2.0)
    clean = JoinedStores([store, renamed(other, "x-")])
    views = StoreViews([clean, JoinedStores([noisy, renamed(more, "x-")])])
    spread = spread_alignment(alignment, views)
    nothing = [-1] * other.num_frames
    assert spread.pdf_ids.tolist() == 2 * [*alignment.pdf_ids.tolist(), *nothing]
    assert spread.states.tolist() == 2 * [*alignment.states.tolist(), *nothing]
    assert spread.aligned.tolist() == 2 * [True, True, True, False, False]
    assert spread.pdf_ids.dtype == alignment.pdf_ids.dtype and spread.aligned.dtype == bool
    assert spread_alignment(spread, views) is spread
    assert views.rows.tolist() == 2 * list(range(clean.num_frames)) and views.head == 3
    whole = spread_alignment(alignment, clean)
    assert spread_alignment(whole, views).pdf_ids.tolist() == spread.pdf_ids.tolist()


def test_hidden_transcripts_are_those_of_texts() -> None:
    store, alignment, cmvn = synthetic(utterances=40)
    assert hidden_alignment(alignment, store, 0.0) is alignment
    half, most = (hidden_alignment(alignment, store, share) for share in (0.5, 0.8))
    assert 10 < half.aligned.sum() < 30 and most.aligned.sum() < half.aligned.sum()
    assert half.aligned[most.aligned].all()
    frames = np.repeat(half.aligned, np.diff(store.offsets))
    for name in ("pdf_ids", "phone_ids", "states"):
        values, before = getattr(half, name), getattr(alignment, name)
        assert (values[frames] == before[frames]).all() and (values[~frames] == -1).all()
        assert values.dtype == before.dtype
    perturbed, _, _ = synthetic(utterances=40, seed=1)  # the same texts, other frames
    other = hidden_alignment(alignment, renamed(perturbed, "sp0.9-"), 0.5)
    assert (other.aligned == half.aligned).all()
    data = TrainingData.build(store, half, cmvn, CONFIG, CPU, **CONTEXT)
    assert owners(data.train, store) | owners(data.heldout, store) == set(np.flatnonzero(half.aligned))
    data = TrainingData.build(store, half, cmvn, CONFIG, CPU, unaligned=True, **CONTEXT)
    assert owners(data.train, store) >= set(np.flatnonzero(~half.aligned))
    assert data.target_rows is None
    views = TrainingData.build(StoreViews([store, store]), half, cmvn, CONFIG, CPU, **CONTEXT)
    assert views.target_rows is not None and views.target_rows.tolist() == 2 * list(range(store.num_frames))


def test_alignments_of_something_else_are_named() -> None:
    store, _, cmvn = synthetic(utterances=3)
    _, other, _ = synthetic(utterances=4)
    with pytest.raises(UserError, match="align this store again"):
        TrainingData.build(StoreViews([store, store]), other, cmvn, CONFIG, CPU, **CONTEXT)


def test_a_student_learns_from_soft_targets_of_unaligned_views(tmp_path: Path) -> None:
    """Teacher's posteriors are of the clean store; most utterances have no senones, half of the frames are noisy."""
    store, truth, cmvn = synthetic(utterances=24)
    noisy, _, _ = synthetic(utterances=24, noise=1.3)
    _, alignment, _ = synthetic(utterances=24, unaligned=tuple(range(6, 24)))
    views = StoreViews([store, noisy])
    config = replace(CONFIG, heldout_fraction=0.5)
    data = TrainingData.build(views, alignment, cmvn, config, CPU, unaligned=True, **CONTEXT)
    posteriors = np.full((store.num_frames, 8), 0.02, np.float16)
    posteriors[np.arange(store.num_frames), truth.pdf_ids] = 0.86
    ids = np.argsort(-posteriors, 1).astype(np.uint16)
    soft = SoftStore(ids, np.take_along_axis(posteriors, ids.astype(int), 1), np.zeros(store.num_frames, np.float16),
                     1.0, 8, {})
    targets = SoftTargets(soft, DistillConfig(hard_weight=0.5), data.pdf_ids, rows=views.rows)
    frame = torch.tensor([views.num_frames - 1])
    assert targets.gather(frame)[0].tolist() == ids[[-1]].tolist()
    assert data.pdf_ids[frame] == -1 and targets.to(CPU).loss(torch.zeros(1, 8), frame) > 0
    with pytest.raises(UserError, match="write the soft targets of this store again"):
        SoftTargets(soft, DistillConfig(), data.pdf_ids)
    with pytest.raises(UserError, match=f"row {views.num_frames - 1} is asked for"):
        SoftTargets(soft, DistillConfig(), data.pdf_ids, rows=np.arange(views.num_frames))
    config = TrainerConfig(batch=96, chunk=12, epochs=12, warmup_updates=5, learning_rate=1e-2, tensorboard=False)
    result = train(build_network(KINDS["tdnn"], 6, 8), data, targets, config, seed=0, work=tmp_path, device=CPU)
    assert result.accuracy > 0.7
