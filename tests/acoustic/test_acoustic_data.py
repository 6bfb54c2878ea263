from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.config import DataConfig
from asr_distill.acoustic.data import TrainingData, _split
from asr_distill.errors import UserError
from asr_distill.hmm.align import Alignment

CPU = torch.device("cpu")
CONFIG = DataConfig(heldout_fraction=0.25)
CONTEXT = {"left": 7, "right": 3}


@pytest.mark.parametrize("context", [(7, 3), (2, 3), (0, 0), (7, 0)])
def test_windows_stay_inside_their_utterance(context: tuple[int, int]) -> None:
    store, alignment, cmvn = synthetic(utterances=4, frames=9)
    data = TrainingData.build(store, alignment, cmvn, CONFIG, CPU, **CONTEXT)
    left, right = context
    windows = data.windows(torch.arange(store.num_frames), left, right)
    for index in range(4):  # brute force, frame by frame
        begin, end = store.offsets[index:index + 2]
        frames = cmvn.apply(store.features(index, CPU))
        for t in range(end - begin):
            expected = torch.stack([frames[min(max(t + d, 0), end - begin - 1)] for d in range(-left, right + 1)])
            assert torch.equal(windows[begin + t], expected)


def test_split_is_by_utterance_and_the_same_for_all() -> None:
    store, alignment, cmvn = synthetic(utterances=12, unaligned=(2, 5))
    data = TrainingData.build(store, alignment, cmvn, CONFIG, CPU, **CONTEXT)
    owner = np.repeat(np.arange(12), np.diff(store.offsets))
    train, heldout = (set(owner[frames.numpy()]) for frames in (data.train, data.heldout))
    assert not train & heldout
    assert train | heldout == set(range(12)) - {2, 5}
    assert len(heldout) == 2  # a quarter of ten, rounded
    for frames, utterances in ((data.train, train), (data.heldout, heldout)):
        assert len(frames) == sum(np.diff(store.offsets)[list(utterances)])
    again = TrainingData.build(store, alignment, cmvn, CONFIG, CPU, torch.bfloat16, **CONTEXT)
    assert torch.equal(again.train, data.train)
    other = TrainingData.build(store, alignment, cmvn, dataclasses.replace(CONFIG, seed=1), CPU, **CONTEXT)
    assert not torch.equal(other.train, data.train)


def test_a_fraction_keeps_the_same_heldout() -> None:
    store, alignment, cmvn = synthetic(utterances=12)
    whole = TrainingData.build(store, alignment, cmvn, CONFIG, CPU, **CONTEXT)
    third = TrainingData.build(store, alignment, cmvn, dataclasses.replace(CONFIG, train_fraction=0.3), CPU, **CONTEXT)
    assert torch.equal(whole.heldout, third.heldout)
    assert 0 < len(third.train) < len(whole.train)
    assert set(third.train.tolist()) < set(whole.train.tolist())


def test_single_unaligned_frames_are_left_out() -> None:
    store, alignment, cmvn = synthetic()
    pdf_ids = alignment.pdf_ids.copy()
    pdf_ids[::7] = -1
    data = TrainingData.build(store, dataclasses.replace(alignment, pdf_ids=pdf_ids), cmvn, CONFIG, CPU, **CONTEXT)
    chosen = torch.cat([data.train, data.heldout])
    assert (data.pdf_ids[chosen] >= 0).all()
    assert len(chosen) == (pdf_ids >= 0).sum()
    expected = np.bincount(pdf_ids[data.train.numpy()], minlength=alignment.num_pdfs)
    assert data.pdf_frequencies().tolist() == expected.tolist()


def test_frames_that_do_not_fit_the_device_stay_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from asr_distill.acoustic.data import home_for
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    cuda = torch.device("cuda")
    assert home_for(10**6, cuda) == CPU
    assert home_for(100, cuda) == cuda
    assert home_for(10**12, CPU) == CPU


def test_mistakes_are_named() -> None:
    store, alignment, cmvn = synthetic(utterances=3)
    short = dataclasses.replace(alignment, pdf_ids=alignment.pdf_ids[:-1], phone_ids=alignment.phone_ids[:-1],
                                states=alignment.states[:-1])
    with pytest.raises(UserError, match="align this store again"):
        TrainingData.build(store, short, cmvn, CONFIG, CPU, **CONTEXT)
    _, nothing, _ = synthetic(utterances=3, unaligned=(0, 1, 2))
    with pytest.raises(UserError, match="no aligned frame"):
        TrainingData.build(store, nothing, cmvn, CONFIG, CPU, **CONTEXT)
    with pytest.raises(ValueError, match="8 left"):
        TrainingData.build(store, alignment, cmvn, CONFIG, CPU, **CONTEXT).windows(torch.arange(3), 8, 3)


def test_copies_of_a_heldout_text_are_not_trained_on() -> None:
    texts = [(f"T{index // 3}",) for index in range(60)]  # three copies of each text
    offsets = np.arange(0, 610, 10)
    pdf_ids = np.zeros(600, np.int32)
    alignment = Alignment(pdf_ids, np.zeros(600, np.int16), np.zeros(600, np.int8), np.ones(60, bool), 1)
    train, heldout = _split(alignment, offsets, texts, DataConfig(heldout_fraction=0.1, seed=3), "store")
    told = [{texts[frame // 10] for frame in frames.tolist()} for frames in (train, heldout)]
    assert not told[0] & told[1]
    assert len(told[1]) in (2, 3) and len(heldout) in (60, 90) and len(train) + len(heldout) == 600
