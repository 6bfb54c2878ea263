"""Target sherpa-onnx: a streaming recogniser for the unmodified runtime, on servers, phones and in browsers.

The runtime calls a network of its kind "zipformer2 CTC" block by block and searches a graph that we bring; its
FasterDecoder has a beam of 16, so graph costs and acoustic scale are stretched until that is the beam that was asked
for. Its text is made of the names of the input labels on the best path, so words are put on these (word_columns).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from asr_distill.decode.decoder import SearchConfig
from asr_distill.errors import UserError
from asr_distill.export.compress import Precision, compress
from asr_distill.export.exporter import Heard, Spoken, Written
from asr_distill.export.onnx import write_graph
from asr_distill.export.precision_plan import check_divergence, plan_of
from asr_distill.export.script import copy_scripts, run_script
from asr_distill.export.source import Source
from asr_distill.export.streaming import StreamingEmission
from asr_distill.export.word_columns import WordColumns, with_word_columns
from asr_distill.features.fbank import FbankConfig
from asr_distill.files import write_text
from asr_distill.lang.fst_arrays import FstArrays

NETWORK, GRAPH, TOKENS = "model.onnx", "HCLG.fst", "tokens.txt"
BEAM = 16.0  # of the runtime's FasterDecoder; it cannot be set
UNFINISHED = 100.0  # cost of ending inside a word or sentence: results also come where no path is complete
BLANK = "<blk>"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # the runtime reads it as a space


@dataclass(frozen=True)
class SherpaSettings:
    precision: Precision = "float32"
    block_ms: int = 160  # of audio that the network hears at a time, besides its look-ahead
    text: bool = True  # words in the result's text; else only as numbers in its `words`

    max_divergence: float = 0.01  # nats a frame; a layer that costs more in integers stays in float32

    def __post_init__(self) -> None:
        check_divergence(self.max_divergence)
        if not 10 <= self.block_ms <= 2000:
            raise ValueError(f"block_ms must lie in [10, 2000], not {self.block_ms}")


class SherpaExporter:
    name = "sherpa-onnx"
    summary = "streaming recogniser for sherpa-onnx (pip, npm, Android, iOS, WebAssembly)"
    runtime: tuple[str, ...] = ("sherpa_onnx",)
    settings_class = SherpaSettings

    def write(self, source: Source, out: Path, settings: SherpaSettings, speech: Sequence[np.ndarray]) -> Written:
        _check_features(source.features)
        num_pdfs, stretch = source.model.num_pdfs, BEAM / source.search.beam
        emission = StreamingEmission(source.model, round(settings.block_ms / source.features.frame_shift_ms),
                                     source.search.acoustic_scale * stretch, silence=source.silence_pdfs())
        graph = runtime_graph(source.graph(), source.search, stretch)
        none = np.zeros(0, np.int32)
        marked = with_word_columns(graph, num_pdfs) if settings.text else WordColumns(graph, none, none)
        marked.graph.write(out / GRAPH)
        names = [SPACE] * num_pdfs + [SPACE + source.lang.words[word] for word in marked.words.tolist()]
        names.append(BLANK)  # the runtime wants one; no path has it
        write_text(out / TOKENS, "".join(f"{name} {column}\n" for column, name in enumerate(names)))
        write_text(out / "words.txt", (source.lang.directory / "words.txt").read_text(encoding="utf-8"))
        plan = plan_of(source, settings.precision, speech, settings.max_divergence)
        _write_network(emission, marked.pdfs, out / NETWORK, settings.precision, plan.keep, speech)
        copy_scripts(out, "sherpa-onnx")
        shift = source.features.frame_shift_ms / 1000
        facts = {"sample_rate": source.features.sample_rate, "feature_dim": source.features.num_mel_bins,
                 "max_active": source.search.max_active, "block_seconds": round(emission.block * shift, 3),
                 "lookahead_seconds": round((emission.frames - emission.block) * shift, 3),
                 "tail_seconds": round((emission.frames + 2) * shift, 3),  # silence to put behind a recording
                 **plan.facts}
        return Written((NETWORK,), "pip install sherpa-onnx; python transcribe.py FILE.wav ...   or   "
                                   "npm install sherpa-onnx; node transcribe.cjs FILE.wav ...", facts)

    def recognise(self, source: Source, directory: Path, speech: Iterable[Spoken]) -> Iterator[Heard]:
        """By the script in the directory, in a process of its own."""
        return run_script(directory, speech, source.features.sample_rate)


def runtime_graph(graph: FstArrays, search: SearchConfig, stretch: float) -> FstArrays:
    """HCLG with the insertion penalty on its words, its costs times `stretch`, and an expensive end everywhere."""
    weights = (graph.weights + search.insertion_penalty * (graph.olabels > 0)) * stretch
    finals = np.where(np.isinf(graph.finals), UNFINISHED, graph.finals) * stretch
    return replace(graph, weights=weights.astype(np.float32), finals=finals.astype(np.float32))


class _Zipformer2Ctc(nn.Module):
    """StreamingEmission under the names and shapes of the states of a streaming zipformer of one layer: the raw frames
    are its cached keys; the other states are handed on as they are.
    """

    columns: torch.Tensor

    def __init__(self, emission: StreamingEmission, extra: np.ndarray):
        super().__init__()
        self.emission = emission
        own = np.arange(emission.num_pdfs, dtype=np.int32)
        self.extra = len(extra) > 0
        self.register_buffer("columns", torch.from_numpy(np.concatenate([own, extra])))

    def states(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Name -> (shape of one stream, place of the batch in it)."""
        past, bands = self.emission.history, self.emission.num_coefficients
        return {"cached_key": ((past, 1, bands), 1), "cached_nonlin_attn": ((1, 1, past, 3), 1),
                "cached_val1": ((past, 1, 1), 1), "cached_val2": ((past, 1, 1), 1), "cached_conv1": ((1, 4, 1), 0),
                "cached_conv2": ((1, 4, 1), 0), "embed_states": ((1, 128, 3, 19), 0)}

    def metadata(self) -> dict[str, str]:
        emission = self.emission
        return {"model_type": "zipformer2", "encoder_dims": "4", "query_head_dims": str(emission.num_coefficients),
                "value_head_dims": "1", "num_heads": "1", "num_encoder_layers": "1", "cnn_module_kernels": "3",
                "left_context_len": str(emission.history), "T": str(emission.frames),
                "decode_chunk_len": str(emission.block)}

    def forward(self, x: torch.Tensor, cached_key: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *idle, heard = others
        scores, past, heard = self.emission(x, cached_key.transpose(0, 1), heard)
        if self.extra:
            # whole rows are copied: picking single numbers of each frame takes four times as long
            scores = scores.transpose(1, 2).index_select(1, self.columns).transpose(1, 2)
        return scores, past.transpose(0, 1), *(state + 0 for state in idle), heard


def _write_network(emission: StreamingEmission, extra: np.ndarray, path: Path, precision: str, keep: Sequence[int],
                   speech: Sequence[np.ndarray]) -> None:
    network = _Zipformer2Ctc(emission, extra).eval()
    states = network.states()
    example = [torch.zeros(2, emission.frames, emission.num_coefficients)]
    axes = {"x": {0: "N"}, "log_probs": {0: "N"}, "processed_lens": {0: "N"}, "new_processed_lens": {0: "N"}}
    for name, (shape, batch) in states.items():
        example.append(torch.zeros(*(2 if place == batch else size for place, size in enumerate(shape))))
        axes |= {name: {batch: "N"}, f"new_{name}": {batch: "N"}}
    example.append(torch.zeros(2, dtype=torch.int64))
    inputs = ["x", *states, "processed_lens"]
    write_graph(network, tuple(example), path, inputs, ["log_probs", *(f"new_{name}" for name in inputs[1:])], axes,
                network.metadata())
    feeds = _block_feeds(network, path, speech) if precision == "int8-static" else []
    compress(path, precision, keep=keep, feeds=feeds)
    proto = onnx.load(path)
    _shorten_columns(proto, len(extra) + emission.num_pdfs)
    onnx.save(proto, path)


def _block_feeds(network: _Zipformer2Ctc, path: Path, speech: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The network's inputs, block by block, as it gets them while it hears `speech`."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    emission, feeds = network.emission, []
    for frames in speech:
        state = {name: np.zeros(shape, np.float32) for name, (shape, _) in network.states().items()}
        state["processed_lens"] = np.zeros(1, np.int64)
        for begin in range(0, len(frames) - emission.frames + 1, emission.block):
            feed = {"x": frames[None, begin:begin + emission.frames], **state}
            feeds.append(feed)
            state = dict(zip(state, session.run(None, feed)[1:], strict=True))
    return feeds


def _shorten_columns(proto: onnx.ModelProto, count: int) -> None:
    """Keep the list of columns in 16 bits: it is a third of the file otherwise."""
    for index, initializer in enumerate(proto.graph.initializer):
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype in (np.int32, np.int64) and values.shape == (count,) and values.max(initial=0) < 1 << 16:
            name = initializer.name
            proto.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.uint16),
                                                                                 name + "_short"))
            kind = onnx.TensorProto.INT32 if values.dtype == np.int32 else onnx.TensorProto.INT64
            proto.graph.node.insert(0, onnx.helper.make_node("Cast", [name + "_short"], [name], to=kind))
            return


def _check_features(config: FbankConfig) -> None:
    """The runtime's features cannot be set but for rate and number of bands."""
    fixed = FbankConfig(sample_rate=config.sample_rate, num_mel_bins=config.num_mel_bins)
    different = [name for name, value in vars(fixed).items() if getattr(config, name) != value]
    if different:
        name = different[0]
        raise UserError(f"sherpa-onnx computes features with {name}={getattr(fixed, name)}, this student hears "
                        f"{name}={getattr(config, name)}: train it with features.{name}={getattr(fixed, name)}")


EXPORTER = SherpaExporter()
