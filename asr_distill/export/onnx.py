"""An acoustic model as one ONNX graph: raw log-mel frames in, pdf log-likelihoods out.

Normalisation, splicing with repeated edge frames, network, log-softmax and division by the priors are all
inside, so that any runtime gets what `AcousticModel.log_likelihoods` gives.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Protocol

import onnx
import torch
from torch import nn

from asr_distill import __version__
from asr_distill.errors import UserError
from asr_distill.export.logits import SplicedLogits, logits_of
from asr_distill.features.cmvn import Cmvn
from asr_distill.files import atomic_path

OPSET = 13  # with IR 8: what the deployed runtimes read (sherpa-onnx, onnxruntime from 1.10)
IR_VERSION = 8
INPUT, OUTPUT = "features", "log_likelihoods"


class ExportableModel(Protocol):
    """What the graph is made from: an acoustic.model.AcousticModel."""

    @property
    def network(self) -> Any:
        """.left, .right, forward(windows (batch, left+1+right, coefficients)) -> (batch, pdfs)."""

    @property
    def cmvn(self) -> Cmvn:
        """How it normalises."""

    @property
    def log_priors(self) -> torch.Tensor:
        """(pdfs,)."""


class EmissionGraph(nn.Module):
    """(batch, frames, coefficients) raw log-mel -> (batch, frames, pdfs) log posterior minus log prior (without
    `priors` the log posterior), times `acoustic_scale`.
    """

    log_priors: torch.Tensor
    normalise: nn.Module

    def __init__(self, model: ExportableModel, *, priors: bool = True, acoustic_scale: float = 1.0):
        super().__init__()
        self.priors, self.acoustic_scale = priors, acoustic_scale
        logits = logits_of(model.network)
        if logits is None:
            raise UserError(f"a network of this kind ({type(model.network).__name__}) cannot be exported: train the "
                            "student with network kind feed_forward, tdnn or conv_tdnn")
        self.logits, self.normalise = logits, nn.Identity()
        cmvn = model.cmvn
        if cmvn.kind == "online":
            self.normalise = OnlineCmvn(cmvn)
        elif not (isinstance(logits, SplicedLogits) and fold_cmvn(logits, cmvn)):
            self.normalise = GlobalCmvn(cmvn)
        self.register_buffer("log_priors", torch.as_tensor(model.log_priors).detach().cpu().float().clone())

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        scores = torch.log_softmax(self.logits(self.normalise(frames)), dim=-1)
        if self.priors:
            scores = scores - self.log_priors
        return scores if self.acoustic_scale == 1 else scores * self.acoustic_scale


class GlobalCmvn(nn.Module):
    """Mean and variance of the training set."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, cmvn: Cmvn):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(cmvn.train.mean))
        self.register_buffer("scale", torch.as_tensor(1.0 / cmvn.train.std).float())

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return (frames - self.mean.float()) * self.scale


class OnlineCmvn(GlobalCmvn):
    """Cmvn.online_mean for a batch: the causal sliding mean, as a float64 running sum read at two places."""

    def __init__(self, cmvn: Cmvn):
        super().__init__(cmvn)
        self.window, self.prior_frames = cmvn.window, cmvn.prior_frames

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        sums = frames.double().cumsum(1)  # (batch, frames, coefficients), sums[t] of frames 0..t
        sums = torch.cat([torch.zeros_like(sums[:, :1]), sums], dim=1)
        end = torch.arange(1, sums.shape[1], device=frames.device)
        begin = (end - self.window).clamp(min=0)
        heard = (end - begin).double().unsqueeze(1)  # (frames, 1)
        prior = (self.window - heard).clamp(max=float(self.prior_frames))
        total = sums.index_select(1, end) - sums.index_select(1, begin) + prior * self.mean
        return (frames - (total / (heard + prior)).float()) * self.scale


def fold_cmvn(logits: SplicedLogits, cmvn: Cmvn) -> bool:
    """Fold (x - mean) / std into the network's first affine layer, in place: W / std, b - (W / std) mean.

    Returns False, with the network as it was, where its first layer is no affine map of the spliced window.
    """
    network, width = logits.network, logits.left + 1 + logits.right
    first = next((module for module in network.modules() if list(module.parameters(recurse=False))), None)
    coefficients = len(cmvn.train.mean)
    if not isinstance(first, nn.Linear) or first.in_features != width * coefficients or first.bias is None:
        return False
    mean = torch.as_tensor(cmvn.train.mean).repeat(width)  # (width * coefficients,)
    std = torch.as_tensor(cmvn.train.std).repeat(width)
    probe = torch.randn(8, width, coefficients, generator=torch.Generator().manual_seed(0))
    raw = (probe.double() * std[:coefficients] + mean[:coefficients]).float()
    with torch.no_grad():
        wanted = network(probe)
        weight, bias = first.weight.clone(), first.bias.clone()
        folded = weight.double() / std
        first.weight.copy_(folded)
        first.bias.copy_(bias.double() - folded @ mean)
        if torch.allclose(network(raw), wanted, rtol=1e-3, atol=1e-3):
            return True
        first.weight.copy_(weight)  # something without parameters stands before that layer
        first.bias.copy_(bias)
    return False


def check_deployable(model: ExportableModel) -> None:
    """Raises UserError for a model whose CMVN needs the speaker."""
    if model.cmvn.kind in ("speaker", "speaker_mean") or model.cmvn.stream == "adapted":
        raise UserError(f"this model hears frames made for the speaker (CMVN kind '{model.cmvn.kind}', stream "
                        f"'{model.cmvn.stream}'), and a deployed recogniser does not know the speaker: "
                        "train the student with CMVN kind 'global' or 'online' on raw features")


def export_onnx(model: ExportableModel, path: Path, metadata: dict[str, Any] | None = None, *, priors: bool = True,
                acoustic_scale: float = 1.0) -> None:
    """Write `path`: `features` (batch, frames, coefficients) -> `log_likelihoods` (batch, frames, pdfs), as the
    EmissionGraph of these settings gives them.

    `metadata` is added to the file's own. Raises UserError for a model whose CMVN needs the speaker, or whose network
    has attention.
    """
    check_deployable(model)
    graph = EmissionGraph(model, priors=priors, acoustic_scale=acoustic_scale).eval()
    coefficients = len(model.cmvn.train.mean)
    left, right = int(model.network.left), int(model.network.right)
    example = torch.zeros(2, left + right + 3, coefficients)
    facts = {"num_pdfs": len(graph.log_priors), "num_coefficients": coefficients, "left": left, "right": right,
             "cmvn": model.cmvn.kind, "log_priors": [float(f"{value:.9g}") for value in graph.log_priors.tolist()],
             "priors_divided": priors, "acoustic_scale": acoustic_scale, **(metadata or {})}
    write_graph(graph, (example,), path, [INPUT], [OUTPUT],
                {name: {0: "batch", 1: "frames"} for name in (INPUT, OUTPUT)}, facts)


def write_graph(module: nn.Module, example: tuple[torch.Tensor, ...], path: Path, inputs: list[str],
                outputs: list[str], axes: dict[str, dict[int, str]], metadata: dict[str, Any]) -> None:
    """Trace `module` on `example` into an ONNX file that deployed runtimes read; `axes`: the free ones, by name."""
    with atomic_path(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad():
            # the successor of this exporter needs onnxscript and writes opset 18 or later
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            torch.onnx.export(module, example, str(temporary), opset_version=OPSET, dynamo=False,
                              input_names=inputs, output_names=outputs, dynamic_axes=axes)
        proto = onnx.load(temporary)
        proto.ir_version = IR_VERSION
        proto.producer_name, proto.producer_version = "asr_distill", __version__
        onnx.helper.set_model_props(proto, {key: value if isinstance(value, str) else json.dumps(value)
                                            for key, value in metadata.items()})
        onnx.checker.check_model(proto)
        onnx.save(proto, temporary)
