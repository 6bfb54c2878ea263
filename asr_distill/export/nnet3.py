"""Our networks as Kaldi's nnet3: components (fixed affine maps, ReLU, per-frame norm) and how they are wired.

Batch normalisation and whatever else is linear goes into the affine maps. A network on a grid of several frames is
wired so that its hidden layers are asked for at the grid's frames alone: each frame of a step has an affine map of its
own from the step's hidden vector, and a Switch takes them in turn (frame numbers count from the recording's first).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from asr_distill.acoustic.base import Float32Norm
from asr_distill.acoustic.feed_forward import FeedForward
from asr_distill.acoustic.grid import Affine, GridNetwork, SplicedFront
from asr_distill.acoustic.spliced import SplicedLinear
from asr_distill.acoustic.tdnn import TdnnBlock
from asr_distill.errors import UserError
from asr_distill.export.kaldi_io import KaldiWriter


@dataclass(frozen=True)
class FixedAffine:
    weight: np.ndarray  # float64 (outputs, inputs)
    bias: np.ndarray  # float64 (outputs,)


@dataclass(frozen=True)
class Unparametrised:
    """A component of which the size is all that is to be said."""

    dim: int


class Relu(Unparametrised):
    pass


class PerFrameNorm(Unparametrised):
    """x / sqrt(mean of x^2)."""


class LogSoftmax(Unparametrised):
    pass


class NoOp(Unparametrised):
    """Its input: a sum under a name, or descriptors of descriptors would grow without bound."""


Component = FixedAffine | Unparametrised


@dataclass
class Nnet3:
    """A network as it grows; `append` gives the name of the new component's node."""

    inputs: int
    nodes: list[str] = field(default_factory=list)
    components: dict[str, Component] = field(default_factory=dict)

    def append(self, component: Component, descriptor: str) -> str:
        name = f"{type(component).__name__.lower()}{len(self.components)}"
        self.components[name] = component
        self.nodes.append(f"component-node name={name} component={name} input={descriptor}")
        return name

    def affine(self, weight: np.ndarray, bias: np.ndarray | None, descriptor: str) -> str:
        return self.append(FixedAffine(weight, np.zeros(len(weight)) if bias is None else bias), descriptor)


def to_nnet3(network: nn.Module, mean: np.ndarray, std: np.ndarray, floor: np.ndarray | None) -> Nnet3:
    """From frames as the runtime has them; the network hears (frame - mean) / std, each float64 (coefficients,).

    `floor`: values under it are raised to it first (what Kaldi's features hold where the audio is digital silence).
    Raises UserError for a kind of network that has no such form.
    """
    net = Nnet3(len(mean))
    source = "input"
    shift = np.zeros(len(mean))
    if floor is not None:  # max(x, floor) = relu(x - floor) + floor
        source = net.affine(np.eye(len(mean)), -floor, source)
        source = net.append(Relu(len(mean)), source)
        shift = floor
    with torch.no_grad():
        if isinstance(network, FeedForward):
            last = _feed_forward(net, network, source, mean - shift, std)
        elif isinstance(network, GridNetwork) and isinstance(network.front, SplicedFront) and all(
                isinstance(block, TdnnBlock) for block in network.blocks):
            last = _grid(net, network, source, mean - shift, std)
        else:
            raise UserError(f"a network of this kind ({type(network).__name__}) has no form in Kaldi's nnet3 here: "
                            "train the student with network kind feed_forward or tdnn")
        output = network.output
        last = net.affine(_array(output.weight), _array(output.bias), last)
    last = net.append(LogSoftmax(output.out_features), last)
    net.nodes.append(f"output-node name=output input={last} objective=linear")
    return net


def write_nnet3(net: Nnet3, out: KaldiWriter, *, halved: bool) -> None:
    """`halved`: affine maps with 16 bits a weight."""
    out.token("<Nnet3>")
    out.text("\n".join(["", f"input-node name=input dim={net.inputs}", *net.nodes, "", ""]))
    out.token("<NumComponents>")
    out.integer(len(net.components))
    for name, component in net.components.items():
        out.token("<ComponentName>", name)
        _write(component, out, halved)
    out.token("</Nnet3>")


def _write(component: Component, out: KaldiWriter, halved: bool) -> None:
    if isinstance(component, FixedAffine):
        out.token("<FixedAffineComponent>", "<LinearParams>")
        (out.matrix16 if halved else out.matrix)(component.weight)
        out.token("<BiasParams>")
        out.vector(component.bias)
        out.token("</FixedAffineComponent>")
    elif isinstance(component, PerFrameNorm):
        out.token("<NormalizeComponent>", "<InputDim>")
        out.integer(component.dim)
        out.token("<TargetRms>")
        out.real(1.0)
        out.token("<AddLogStddev>")
        out.text("F")
        out.token("</NormalizeComponent>")
    elif isinstance(component, NoOp):
        out.token("<NoOpComponent>", "<Dim>")
        out.integer(component.dim)
        out.token("<BackpropScale>")
        out.real(1.0)
        out.token("</NoOpComponent>")
    else:
        kind = "RectifiedLinearComponent" if isinstance(component, Relu) else "LogSoftmaxComponent"
        out.token(f"<{kind}>", "<Dim>")
        out.integer(component.dim)
        _no_statistics(out)
        out.token(f"</{kind}>")


def _no_statistics(out: KaldiWriter) -> None:
    """What a nonlinear component has gathered in training: nothing."""
    none = np.zeros(0)
    out.token("<ValueAvg>")
    out.vector(none)
    out.token("<DerivAvg>")
    out.vector(none)
    out.token("<Count>")
    out.real(0.0)
    out.token("<OderivRms>")
    out.vector(none)
    out.token("<OderivCount>")
    out.real(0.0)


def _feed_forward(net: Nnet3, network: FeedForward, source: str, mean: np.ndarray, std: np.ndarray) -> str:
    last = spliced(source, range(-network.left, network.right + 1))
    layers: list[nn.Module] = list(network.hidden)
    first = True
    while layers:
        linear = layers.pop(0)
        assert isinstance(linear, nn.Linear)
        weight, bias = _array(linear.weight), _array(linear.bias)
        if first:
            weight, bias = _normalised(weight, bias, mean, std)
            first = False
        norm = layers[0] if layers and isinstance(layers[0], Float32Norm) else None
        last = _activated(net, weight, bias, norm, last)
        while layers and not isinstance(layers[0], nn.Linear):
            layers.pop(0)  # normalisation, ReLU, dropout
    return last


def _grid(net: Nnet3, network: GridNetwork, source: str, mean: np.ndarray, std: np.ndarray) -> str:
    front, stride = network.front, network.stride
    linear, norm = network.head.layers[0], network.head.layers[1]
    assert isinstance(front, SplicedFront) and isinstance(linear, SplicedLinear)
    width = linear.weight.shape[2]
    hidden = _affine(net, front.affine, spliced(source, range(-front.left, front.right + 1)), 1, (mean, std))
    for block in network.blocks:
        assert isinstance(block, TdnnBlock)
        out = _affine(net, block.affine, hidden, stride)
        hidden = net.append(NoOp(width), f"Sum({out}, Scale({block.skip:g}, {hidden}))") if block.skip else out
    parts, final = [], network.output.in_features
    for place in range(stride):
        rows = slice(place * final, (place + 1) * final)
        weight = _array(linear.weight)[0][rows]
        bias = np.zeros(final) if linear.bias is None else _array(linear.bias)[rows]
        if isinstance(norm, Float32Norm) and isinstance(norm.norm, nn.LayerNorm) and stride > 1:
            raise UserError("layer normalisation over a head of several frames has no form in Kaldi's nnet3 here: "
                            "train the student with norm: batch")
        part = _activated(net, weight, bias, norm if isinstance(norm, Float32Norm) else None, hidden, rows)
        parts.append(_offset(part, -place))
    return f"Switch({', '.join(parts)})" if stride > 1 else parts[0]


def _affine(net: Nnet3, affine: Affine, source: str, stride: int,
            normalisation: tuple[np.ndarray, np.ndarray] | None = None) -> str:
    linears = [layer for layer in affine.layers if isinstance(layer, SplicedLinear)]
    norms = [layer for layer in affine.layers if isinstance(layer, Float32Norm)]
    for linear in linears[:-1]:
        weight = _array(linear.weight).swapaxes(0, 1).reshape(linear.weight.shape[1], -1)
        source = net.affine(weight, None, spliced(source, [stride * (shift - linear.left) for shift in linear.shifts]))
    linear = linears[-1]
    weight = _array(linear.weight).swapaxes(0, 1).reshape(linear.weight.shape[1], -1)
    bias = np.zeros(len(weight)) if linear.bias is None else _array(linear.bias)
    if normalisation is not None:
        weight, bias = _normalised(weight, bias, *normalisation)
    if linear.shifts != (0,):
        source = spliced(source, [stride * (shift - linear.left) for shift in linear.shifts])
    return _activated(net, weight, bias, norms[0] if norms else None, source)


def _activated(net: Nnet3, weight: np.ndarray, bias: np.ndarray, norm: Float32Norm | None, source: str,
               rows: slice = slice(None)) -> str:
    """Affine map, normalisation, ReLU; of a batch normalisation the given rows."""
    if norm is not None and isinstance(norm.norm, nn.BatchNorm1d):
        batch = norm.norm
        assert batch.running_mean is not None and batch.running_var is not None
        gain = (_array(batch.weight) / np.sqrt(_array(batch.running_var) + batch.eps))[rows]
        bias = (bias - _array(batch.running_mean)[rows]) * gain + _array(batch.bias)[rows]
        weight = weight * gain[:, None]
    elif norm is not None:
        layer = norm.norm
        weight, bias = weight - weight.mean(0), bias - bias.mean()  # its subtraction of the mean is linear
        source = net.append(PerFrameNorm(len(bias)), net.affine(weight, bias, source))
        weight, bias = np.diag(_array(layer.weight)), _array(layer.bias)
    return net.append(Relu(len(bias)), net.affine(weight, bias, source))


def _normalised(weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, std: np.ndarray,
                ) -> tuple[np.ndarray, np.ndarray]:
    """(x - mean) / std of every spliced frame, inside the affine map."""
    frames = weight.shape[1] // len(mean)
    weight = weight / np.tile(std, frames)
    return weight, bias - weight @ np.tile(mean, frames)


def spliced(source: str, offsets: Sequence[int]) -> str:
    parts = [_offset(source, offset) for offset in offsets]
    return f"Append({', '.join(parts)})" if len(parts) > 1 else parts[0]


def _offset(source: str, offset: int) -> str:
    return f"Offset({source}, {offset})" if offset else source


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
