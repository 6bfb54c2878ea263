"""Kaldi's form of our networks by its own rules: descriptors read as text, components as plain arithmetic."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_export_kinds import COEFFICIENTS, KINDS, frames_of, model_of

from asr_distill.acoustic.network import NetworkConfig
from asr_distill.errors import UserError
from asr_distill.export.nnet3 import FixedAffine, LogSoftmax, Nnet3, NoOp, PerFrameNorm, Relu, to_nnet3
from asr_distill.features.cmvn import UtteranceFeatures

SHAPES = {
    "feed_forward": NetworkConfig(layers=2, width=32, left=4, right=2),
    "feed_forward_batch": NetworkConfig(layers=2, width=32, left=4, right=2, norm="batch", dropout=0.2),
    "feed_forward_layer": NetworkConfig(layers=2, width=32, left=4, right=2, norm="layer"),
    **{name: KINDS[name] for name in KINDS if name != "conv_tdnn"},
}


class Evaluator:
    """Values of a node at a frame; frames outside the recording are its first or last one."""

    def __init__(self, net: Nnet3, frames: np.ndarray):
        self.net, self.frames = net, frames
        self.inputs = dict(re.fullmatch(r"component-node name=(\w+) component=\1 input=(.*)", node).groups()
                           for node in net.nodes[:-1])
        self.known: dict[tuple[str, int], np.ndarray] = {}

    def at(self, descriptor: str, t: int) -> np.ndarray:
        descriptor = descriptor.strip()
        if descriptor == "input":
            return self.frames[min(max(t, 0), len(self.frames) - 1)]
        if "(" not in descriptor:
            if (descriptor, t) not in self.known:
                self.known[descriptor, t] = self.component(descriptor, self.at(self.inputs[descriptor], t))
            return self.known[descriptor, t]
        function, arguments = descriptor.split("(", 1)
        parts = split(arguments[:-1])
        if function == "Offset":
            return self.at(parts[0], t + int(parts[1]))
        if function == "Append":
            return np.concatenate([self.at(part, t) for part in parts])
        if function == "Sum":
            return sum(self.at(part, t) for part in parts)  # type: ignore[return-value]
        if function == "Scale":
            return float(parts[0]) * self.at(parts[1], t)
        assert function == "Switch"
        return self.at(parts[t % len(parts)], t)

    def component(self, name: str, values: np.ndarray) -> np.ndarray:
        component = self.net.components[name]
        if isinstance(component, FixedAffine):
            return component.weight @ values + component.bias
        if isinstance(component, Relu):
            return np.maximum(values, 0)
        if isinstance(component, PerFrameNorm):
            return values / np.sqrt(np.mean(values**2))
        if isinstance(component, LogSoftmax):
            return values - values.max() - np.log(np.exp(values - values.max()).sum())
        assert isinstance(component, NoOp)
        return values


def split(arguments: str) -> list[str]:
    parts, depth = [""], 0
    for letter in arguments:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


@pytest.mark.parametrize("name", SHAPES)
def test_posteriors_are_the_networks_own(name: str) -> None:
    model = model_of(SHAPES[name])
    frames = frames_of(23)
    shift = 20.0  # Kaldi's features are those of louder samples
    mean = model.cmvn.train.mean + shift
    net = to_nnet3(model.network, mean, model.cmvn.train.std, np.full(COEFFICIENTS, -60.0))
    found = Evaluator(net, frames.double().numpy() + shift)
    wanted = model.log_posteriors(UtteranceFeatures(frames)).numpy()
    last = net.nodes[-1].split("input=")[1].split()[0]
    for t in range(len(frames)):
        np.testing.assert_allclose(found.at(last, t), wanted[t], atol=3e-4)
    if SHAPES[name].stride == 3:  # hidden layers are asked for at the grid's frames alone
        hidden = {t for node, t in found.known if node == "relu3"}  # the first of them; relu1 is the floor
        assert hidden and all(t % 3 == 0 for t in hidden)


def test_values_under_the_floor_are_raised_to_it() -> None:
    model = model_of(SHAPES["feed_forward"])
    frames = frames_of(9)
    floor = float(frames.min()) + 2.0
    net = to_nnet3(model.network, model.cmvn.train.mean, model.cmvn.train.std, np.full(COEFFICIENTS, floor))
    wanted = model.log_posteriors(UtteranceFeatures(frames.clamp(min=floor))).numpy()
    found = Evaluator(net, frames.double().numpy())
    last = next(name for name in net.components if name.startswith("logsoftmax"))
    np.testing.assert_allclose(found.at(last, 4), wanted[4], atol=3e-4)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(UserError, match="feed_forward or tdnn"):
        to_nnet3(model_of(KINDS["conv_tdnn"]).network, np.zeros(COEFFICIENTS), np.ones(COEFFICIENTS), None)
