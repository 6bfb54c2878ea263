"""ONNX networks in fewer bytes: weights in 16 bits, or products in 8-bit integers (onnxruntime's quantization).

float16: weights at rest in half precision, computed in float32: half the file, the same speed everywhere.
int8: weights per output channel, activations by the range of what the network hears at that moment (dynamic).
int8-static: activations by ranges that were measured on speech beforehand.
The runtime's integer products use VNNI where the processor has it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from asr_distill.errors import UserError
from asr_distill.export.onnx import IR_VERSION
from asr_distill.files import atomic_path

Precision = Literal["float32", "float16", "int8", "int8-static"]
PRODUCTS = ("MatMul", "Gemm")
SMALL = 256  # initializers of fewer numbers stay as they are
Feeds = Sequence[Mapping[str, np.ndarray]]


def compress(path: Path, precision: str, *, keep: Sequence[int] = (), feeds: Feeds = ()) -> None:
    """Rewrite the network in `path`. `keep`: numbers of the layers (as in `layers`) that stay in float32.

    `feeds`: inputs that the network gets from speech; int8-static needs some. Raises UserError where it has none, or
    for an unknown precision.
    """
    if precision not in get_args(Precision):
        raise UserError(f"precision must be one of {', '.join(get_args(Precision))}, not '{precision}'")
    if precision == "float32":
        return
    _slim(path)
    if precision == "float16":
        proto = onnx.load(path)
        halve_weights(proto)
        _shorten_names(proto)
        _save(proto, path)
        return
    if precision == "int8-static" and not feeds:
        raise UserError("precision int8-static needs speech to measure the network's ranges on: give --dev, or take "
                        "--precision int8")
    proto = onnx.load(path)
    names = layers(proto)
    # a Gemm is quantized as the MatMul that the runtime's tool makes of it, under this name
    left = [form for number, name in enumerate(names) if number in set(keep) for form in (name, f"{name}_MatMul")]
    with _quiet(), atomic_path(path) as temporary:
        if precision == "int8":
            quantize_dynamic(path, temporary, op_types_to_quantize=list(PRODUCTS), per_channel=True,
                             weight_type=QuantType.QInt8, nodes_to_exclude=left)
        else:
            quantize_static(path, temporary, _Reader(feeds), op_types_to_quantize=list(PRODUCTS), per_channel=True,
                            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=left,
                            quant_format=QuantFormat.QDQ)
        quantized = onnx.load(temporary)
    onnx.helper.set_model_props(quantized, {item.key: item.value for item in proto.metadata_props})
    _shorten_names(quantized)
    _save(quantized, path)


def layers(proto: onnx.ModelProto) -> list[str]:
    """Names of the products with weights, from input to output."""
    held = {initializer.name for initializer in proto.graph.initializer}
    return [node.name for node in proto.graph.node if node.op_type in PRODUCTS and held.intersection(node.input)]


def divergences(path: Path, precision: str, feeds: Feeds, log_priors: np.ndarray) -> list[tuple[str, float]]:
    """For every layer, the mean Kullback-Leibler divergence (nats a frame) between the network's posteriors and those
    with this layer alone in integers.

    `path`: an ONNX network of `export_onnx` in float32; `feeds`: its inputs.
    """
    names = layers(onnx.load(path))
    own = [_log_posteriors(path, feed, log_priors) for feed in feeds]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            other = Path(folder) / "network.onnx"
            other.write_bytes(path.read_bytes())
            compress(other, precision, keep=[index for index in range(len(names)) if index != number], feeds=feeds)
            total = sum(float((np.exp(p) * (p - _log_posteriors(other, feed, log_priors))).sum())
                        for feed, p in zip(feeds, own, strict=True))
            found.append((name.strip("/").removesuffix("/MatMul").removesuffix("/Gemm"), total / sum(map(len, own))))
    return found


def halve_weights(proto: onnx.ModelProto) -> None:
    """float32 initializers become float16, with a Cast in front of their readers (which runtimes do once, at load)."""
    casts = []
    for initializer in proto.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT or np.prod(initializer.dims) < SMALL:
            continue
        values, name = onnx.numpy_helper.to_array(initializer), initializer.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        initializer.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    for cast in casts:
        proto.graph.node.insert(0, cast)


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Feeds):
        self._feeds: Iterator[Mapping[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def _log_posteriors(path: Path, feed: Mapping[str, np.ndarray], log_priors: np.ndarray) -> np.ndarray:
    """float64 (frames, pdfs)."""
    session = onnxruntime.InferenceSession(str(path), _options(), ["CPUExecutionProvider"])
    scores = session.run(None, dict(feed))[0].reshape(-1, len(log_priors)).astype(np.float64) + log_priors
    scores -= scores.max(1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


def _slim(path: Path) -> None:
    """Fold constants: much of a traced graph is arithmetic on shapes that are known."""
    before = onnx.load(path)
    with atomic_path(path) as temporary:
        options = _options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(temporary)
        onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        proto = onnx.load(temporary)
    onnx.helper.set_model_props(proto, {item.key: item.value for item in before.metadata_props})
    _save(proto, path)


def _shorten_names(proto: onnx.ModelProto) -> None:
    """What only the file itself refers to is numbered: paths of modules are tens of kilobytes."""
    graph = proto.graph
    fixed = {value.name for value in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {}

    def named(name: str) -> str:
        return name if name in fixed else short.setdefault(name, f"{len(short):x}_")

    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return  # a branch may refer to outer names
    for initializer in graph.initializer:
        initializer.name = named(initializer.name)
    for node in graph.node:
        node.name, node.doc_string = "", ""
        node.input[:] = [named(name) for name in node.input]
        node.output[:] = [named(name) for name in node.output]


def _save(proto: onnx.ModelProto, path: Path) -> None:
    proto.ir_version = IR_VERSION
    for entry in [entry for entry in proto.opset_import if entry.domain and not any(
            node.domain == entry.domain for node in proto.graph.node)]:
        proto.opset_import.remove(entry)  # of the optimizer's own, unused
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto)
    with atomic_path(path) as temporary:
        onnx.save(proto, temporary)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return options


class _quiet:
    """onnxruntime's quantization warns through the root logger of a preprocessing step that is done here."""

    def __enter__(self) -> None:
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self._level)
