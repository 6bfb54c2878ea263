"""Networks as ONNX can hold them: whole utterances of any length in, every frame's logits out.

The trainer's forms work on windows and write their own gradients, which no exporter follows. Here the same weights
stand in plain operations; batch and length stay free.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from asr_distill.acoustic.base import Float32Norm
from asr_distill.acoustic.grid import GridNetwork, SplicedFront
from asr_distill.acoustic.spliced import SplicedLinear
from asr_distill.acoustic.tdnn import TdnnBlock


class WindowLogits(nn.Module):
    """(batch, frames, coefficients) -> (batch, frames, pdfs); `of_windows` gives the same from frames in context."""

    left: int
    right: int
    stride: int

    @property
    def ahead(self) -> int:
        """How many frames after the last one of a whole number of strides its logits wait for."""
        return self.right - (self.stride - 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Whole utterances: the first and the last frame are repeated at the edges."""
        length = frames.shape[1]
        steps = (length + self.stride - 1) // self.stride
        place = torch.arange(self.left + steps * self.stride + self.ahead, device=frames.device) - self.left
        last = torch.arange(length, device=frames.device)[-1:]
        windows = frames.index_select(1, torch.minimum(place.clamp(min=0), last))
        return self.of_windows(windows)[:, :length]

    def of_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """windows (batch, left + n + ahead, coefficients) -> (batch, n, pdfs); n a multiple of the stride."""
        raise NotImplementedError


class SplicedLogits(WindowLogits):
    """A network that classifies single windows."""

    def __init__(self, network: nn.Module, left: int, right: int):
        super().__init__()
        self.network, self.left, self.right, self.stride = network, left, right, 1
        fold_batch_norms(self)

    def of_windows(self, windows: torch.Tensor) -> torch.Tensor:
        width, coefficients = self.left + 1 + self.right, windows.shape[2]
        centre = torch.arange(windows.shape[1] - (width - 1), device=windows.device).unsqueeze(1)  # (frames, 1)
        index = centre + torch.arange(width, device=windows.device)  # (frames, width)
        spliced = windows.index_select(1, index.reshape(-1))  # (batch, frames * width, coefficients)
        logits = self.network(spliced.reshape(-1, width, coefficients))  # (batch * frames, pdfs)
        return logits.reshape(windows.shape[0], -1, logits.shape[-1])


class GridLogits(WindowLogits):
    """A network on a grid, over the whole utterance at once; the grid is counted from its first frame."""

    def __init__(self, network: GridNetwork):
        super().__init__()
        self.left, self.right, self.stride = network.left, network.right, network.stride
        self.front = GatheredFront(network.front) if isinstance(network.front, SplicedFront) else network.front
        self.blocks, self.head, self.output = network.blocks, network.head, network.output
        _plain_products(self)
        fold_batch_norms(self)

    def of_windows(self, windows: torch.Tensor) -> torch.Tensor:
        hidden = self.front(windows)  # (steps, batch, width)
        for block in self.blocks:
            hidden = block(hidden)
        final = self.head(hidden).transpose(0, 1)  # (batch, steps, stride * final)
        return self.output(final.reshape(windows.shape[0], -1, self.output.in_features))


class GatheredFront(nn.Module):
    """SplicedFront, its windows gathered by index: the exporter knows no unfolding of a free axis."""

    def __init__(self, front: SplicedFront):
        super().__init__()
        self.reach, self.stride, self.affine = front.left + 1 + front.right, front.stride, front.affine

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """windows (batch, frames, coefficients) -> (steps, batch, width)."""
        batch, frames, coefficients = windows.shape
        steps = (frames - self.reach) // self.stride + 1
        index = torch.arange(steps, device=windows.device).unsqueeze(1) * self.stride + torch.arange(
            self.reach, device=windows.device)  # (steps, reach)
        spliced = windows.index_select(1, index.reshape(-1)).reshape(batch, -1, self.reach * coefficients)
        return self.affine(spliced.transpose(0, 1))


class PlainProduct(nn.Module):
    """SplicedLinear as one product over shifted pieces side by side."""

    def __init__(self, spliced: SplicedLinear):
        super().__init__()
        self.shifts = spliced.shifts
        offsets, outputs, inputs = spliced.weight.shape
        self.linear = nn.Linear(offsets * inputs, outputs, bias=spliced.bias is not None)
        with torch.no_grad():
            self.linear.weight.copy_(spliced.weight.transpose(0, 1).flatten(1))
            if spliced.bias is not None:
                self.linear.bias.copy_(spliced.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (time, batch, inputs) -> (time - left - right, batch, outputs)."""
        length = hidden.shape[0] - max(self.shifts)
        pieces = [hidden[shift:shift + length] for shift in self.shifts]
        return self.linear(torch.cat(pieces, 2) if len(pieces) > 1 else pieces[0])


def _plain_products(module: nn.Module) -> None:
    """Replace every SplicedLinear below `module`."""
    for name, child in module.named_children():
        if isinstance(child, SplicedLinear):
            setattr(module, name, PlainProduct(child))
        else:
            _plain_products(child)


def fold_batch_norms(module: nn.Module) -> None:
    """Put every batch normalisation that follows an affine map in a Sequential below `module` into that map."""
    for child in module.modules():
        if not isinstance(child, nn.Sequential):
            continue
        for index in range(len(child) - 1):
            layer, norm = child[index], child[index + 1]
            linear = layer.linear if isinstance(layer, PlainProduct) else layer
            if isinstance(linear, nn.Linear) and isinstance(norm, Float32Norm) and isinstance(
                    norm.norm, nn.BatchNorm1d):
                _fold(linear, norm.norm)
                child[index + 1] = nn.Identity()


@torch.no_grad()
def _fold(linear: nn.Linear, norm: nn.BatchNorm1d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = -norm.running_mean.double() if linear.bias is None else linear.bias.double() - norm.running_mean.double()
    linear.weight.copy_(linear.weight.double() * gain.unsqueeze(1))
    linear.bias = nn.Parameter((bias * gain + norm.bias.double()).float())


def logits_of(network: nn.Module) -> WindowLogits | None:
    """A copy of `network` as a module (batch, frames, coefficients) -> (batch, frames, pdfs), on the CPU in float32.

    None for a kind that has no such form: attention over a whole recording needs memory of its length squared.
    """
    own = copy.deepcopy(network).cpu().float().eval()
    if isinstance(own, GridNetwork):
        return GridLogits(own) if all(isinstance(block, TdnnBlock) for block in own.blocks) else None
    left, right = int(own.left), int(own.right)  # type: ignore[arg-type]
    return SplicedLogits(own, left, right)
