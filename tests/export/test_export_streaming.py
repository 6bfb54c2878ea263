"""Networks that hear a recording block by block say what the whole recording at once gives."""

from __future__ import annotations

import math

import pytest
import torch
from test_export_kinds import KINDS, PDFS, frames_of, model_of

from asr_distill.acoustic.network import NetworkConfig
from asr_distill.export.streaming import StreamingEmission
from asr_distill.features.cmvn import CmvnKind, UtteranceFeatures
from asr_distill.features.fbank import EPSILON

SHAPES = {"feed_forward": NetworkConfig(layers=2, width=32, left=4, right=2, norm="batch"), **KINDS}
FLOOR = math.log(EPSILON)


def in_blocks(network: StreamingEmission, frames: torch.Tensor) -> torch.Tensor:
    """frames (batch, T, coefficients) -> (batch, whole blocks, pdfs)."""
    past = torch.zeros(len(frames), network.history, frames.shape[2])
    heard, found = torch.zeros(len(frames), dtype=torch.long), []
    with torch.inference_mode():
        for begin in range(0, frames.shape[1] - network.frames + 1, network.block):
            scores, past, heard = network(frames[:, begin:begin + network.frames], past, heard)
            found.append(scores)
    return torch.cat(found, 1)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["global", "online"])
def test_blocks_equal_the_whole(name: str, kind: CmvnKind) -> None:
    model = model_of(SHAPES[name], kind)
    network = StreamingEmission(model, 16, 0.5, silence=[0]).eval()
    assert network.block % model.network.stride == 0 and 16 <= network.block <= 18
    frames = frames_of(900)  # longer than the online mean's window
    found = in_blocks(network, frames[None])[0]
    wanted = 0.5 * model.log_likelihoods(UtteranceFeatures(frames))
    assert len(found) > 900 - network.frames - network.block
    torch.testing.assert_close(found, wanted[:len(found)], atol=2e-4, rtol=1e-4)


def test_streams_side_by_side_may_be_at_different_places() -> None:
    network = StreamingEmission(model_of(SHAPES["tdnn"], "online"), 15).eval()
    long, short = frames_of(300, 1)[None], frames_of(200, 2)[None]
    past, heard = torch.zeros(1, network.history, 40), torch.zeros(1, dtype=torch.long)
    with torch.inference_mode():
        for begin in range(0, 60, network.block):
            _, past, heard = network(long[:, begin:begin + network.frames], past, heard)
        begin = int(heard)
        together = torch.cat([long[:, begin:begin + network.frames], short[:, :network.frames]])
        both, _, _ = network(together, torch.cat([past, torch.zeros_like(past)]), torch.tensor([begin, 0]))
        alone, _, _ = network(long[:, begin:begin + network.frames], past, heard)
    torch.testing.assert_close(both[0], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[1], in_blocks(network, short)[0, :network.block], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["global", "online"])
def test_digital_silence_is_silence_and_leaves_the_rest_as_it_was(kind: CmvnKind) -> None:
    model = model_of(SHAPES["tdnn"], kind)
    network = StreamingEmission(model, 15, silence=[2, 5]).eval()
    frames = frames_of(90)
    muted = torch.cat([frames, torch.full((120, 40), FLOOR)])
    found = in_blocks(network, muted[None])[0]
    wanted = model.log_likelihoods(UtteranceFeatures(frames))  # its last frame repeated at the end
    torch.testing.assert_close(found[:90], wanted, atol=2e-4, rtol=1e-4)
    others = [pdf for pdf in range(PDFS) if pdf not in (2, 5)]
    assert (found[90:, [2, 5]] == 0).all() and (found[90:, others] < -4).all()
    plain = in_blocks(StreamingEmission(model, 15).eval(), muted[None])[0]
    assert (plain[95:].argmax(1) != 2).any()  # what the network makes of frames that no training had


def test_a_recording_that_begins_in_digital_silence() -> None:
    network = StreamingEmission(model_of(SHAPES["tdnn"], "online"), 15, silence=[2]).eval()
    found = in_blocks(network, torch.cat([torch.full((60, 40), FLOOR), frames_of(120)])[None])[0]
    assert torch.isfinite(found).all() and (found[:60].argmax(1) == 2).all()
