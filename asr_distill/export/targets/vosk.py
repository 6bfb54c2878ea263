"""Target vosk: a model directory that the stock packages of Vosk load (Kaldi inside).

    am/final.mdl            transition model and network (binary nnet3)      am/global_cmvn.stats   online CMVN's start
    conf/fbank.conf, conf/model.conf        features, search                graph/HCLG.fst, graph/words.txt
    graph/phones/word_boundary.int          which phones begin and end words: word times

Of online CMVN Vosk 0.3.45 keeps the start alone: the training set's mean for every frame (docs/deploy.md).
The graph is compiled again from L and G, for Kaldi's takes transition-ids. Vosk scales graph costs by 0.9 before it
picks the words, which the acoustic scale makes up for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from asr_distill.decode.expand import add_self_loops
from asr_distill.decode.graph import state_graph
from asr_distill.errors import UserError
from asr_distill.export.exporter import Heard, Spoken, Written
from asr_distill.export.kaldi_io import KaldiWriter
from asr_distill.export.nnet3 import to_nnet3, write_nnet3
from asr_distill.export.onnx import check_deployable
from asr_distill.export.script import copy_scripts, run_script
from asr_distill.export.source import Source
from asr_distill.export.web_page import write_page
from asr_distill.features.cmvn import Cmvn
from asr_distill.features.fbank import EPSILON, FbankConfig
from asr_distill.files import write_text
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lexicon import SILENCE_PHONE
from asr_distill.logs import log

MODEL = "am/final.mdl"
FULL_SCALE = 2 * math.log(32768.0)  # Kaldi hears 16-bit numbers, our features samples in [-1, 1]
GRAPH_SCALE = 0.9  # of Vosk's own, on the lattice
KALDI_WINDOW, KALDI_PRIOR = 600, 200  # of Kaldi's online CMVN; Vosk offers no way to set them
BOUNDARY = {"_B": "begin", "_I": "internal", "_E": "end", "_S": "singleton"}


@dataclass(frozen=True)
class VoskSettings:
    precision: Literal["float32", "int16"] = "float32"  # int16: half the bytes; the runtime computes in float32
    lattice_beam: float = 2.0  # enough for the best words; n best and lattices of the runtime want more (6)
    pause: float = 0.5  # seconds of silence after which the runtime ends an utterance by itself
    page: bool = False  # a web page too, for npm's vosk-browser

    def __post_init__(self) -> None:
        if not (self.lattice_beam > 0 and self.pause > 0):
            raise ValueError(f"lattice_beam and pause must be above 0, not {self.lattice_beam} and {self.pause}")


class VoskExporter:
    name = "vosk"
    summary = "model directory of Vosk (pip, npm, Android, iOS, Raspberry Pi)"
    runtime: tuple[str, ...] = ("vosk",)
    settings_class = VoskSettings

    def write(self, source: Source, out: Path, settings: VoskSettings, speech: Sequence[np.ndarray]) -> Written:
        model, cmvn = source.model, source.model.cmvn
        check_deployable(model)
        online = cmvn.kind == "online"
        if online:
            log.warning("vosk: this student was trained with online CMVN, which Vosk 0.3.45 does not adapt: words are "
                        "lost there (measure with --dev); train one with student.cmvn=global for Vosk")
        if online and (cmvn.window, cmvn.prior_frames) != (KALDI_WINDOW, KALDI_PRIOR):
            raise UserError(f"Vosk's online CMVN has a window of {KALDI_WINDOW} frames and {KALDI_PRIOR} of the "
                            f"training set's, this student {cmvn.window} and {cmvn.prior_frames}")
        mean = np.zeros(cmvn.dimension) if online else cmvn.train.mean + FULL_SCALE
        floor = None if online else np.full(cmvn.dimension, math.log(EPSILON) + FULL_SCALE)
        net = to_nnet3(model.network, mean, np.asarray(cmvn.train.std, np.float64), floor)
        graph, chains = state_graph(source.lang, source.hmm)
        triples = chains.triples()
        file = KaldiWriter()
        write_transition_model(file, source.hmm, triples)
        write_nnet3(net, file, halved=settings.precision == "int16")
        file.token("<LeftContext>")
        file.integer(int(model.network.left))
        file.token("<RightContext>")
        file.integer(int(model.network.right))
        file.token("<Priors>")
        file.vector(model.log_priors.double().exp().numpy())
        file.save(out / MODEL)
        if online:
            stats = KaldiWriter()
            stats.matrix64(cmvn_stats(cmvn))
            stats.save(out / "am/global_cmvn.stats")
        graph = add_self_loops(graph, chains, transition_ids=True)
        graph.weights += np.float32(source.search.insertion_penalty) * (graph.olabels > 0)
        (out / "graph").mkdir()
        graph.write(out / "graph/HCLG.fst")
        write_text(out / "graph/words.txt", (source.lang.directory / "words.txt").read_text(encoding="utf-8"))
        silences = [number for number, phone in enumerate(source.lang.phones, 1) if phone == SILENCE_PHONE]
        kinds = [BOUNDARY.get(phone[-2:], "nonword") for phone in source.lang.phones]
        if any(kind != "nonword" for kind in kinds):
            write_text(out / "graph/phones/word_boundary.int",
                       "".join(f"{number} {kind}\n" for number, kind in enumerate(kinds, 1)))
        write_text(out / "conf/fbank.conf", fbank_options(source.features))
        search = source.search
        write_text(out / "conf/model.conf", "".join(f"--{name}={value}\n" for name, value in (
            ("beam", search.beam), ("max-active", search.max_active), ("min-active", search.min_active),
            ("lattice-beam", settings.lattice_beam), ("acoustic-scale", f"{search.acoustic_scale * GRAPH_SCALE:.8g}"),
            ("frame-subsampling-factor", 1), ("endpoint.silence-phones", ":".join(map(str, silences))),
            ("endpoint.rule2.min-trailing-silence", settings.pause),
            ("endpoint.rule3.min-trailing-silence", settings.pause + 0.5),
            ("endpoint.rule4.min-trailing-silence", settings.pause + 1.5))))
        copy_scripts(out, "vosk")
        if settings.page:
            write_page(out, source.features.sample_rate)
        return Written((MODEL,), "pip install vosk; python transcribe.py FILE.wav ...   "
                                 "(or any program of Vosk's, with this directory as its model)",
                       {"sample_rate": source.features.sample_rate,
                        "frame_seconds": source.features.frame_shift_ms / 1000})  # Vosk takes a frame for 30 ms

    def recognise(self, source: Source, directory: Path, speech: Iterable[Spoken]) -> Iterator[Heard]:
        """By the script in the directory, in its own process: in one with our Kaldi wheels Vosk waits for ever."""
        return run_script(directory, speech, source.features.sample_rate)


def write_transition_model(file: KaldiWriter, hmm: HmmModel, triples: list[tuple[int, int, int]]) -> None:
    """Kaldi's TransitionModel: left-to-right topologies and the (phone, state, pdf) in use, sorted.

    Its probabilities are those of the graph already; here they serve nothing but the form.
    """
    kinds = sorted(set(hmm.states))
    file.token("<TransitionModel>", "<Topology>")
    file.integers(range(1, len(hmm.phones) + 1))
    file.integers([-1, *(kinds.index(states) for states in hmm.states)])
    file.integer(len(kinds))
    for states in kinds:
        file.integer(states + 1)
        for state in range(states):
            file.integer(state, 2, state)  # pdf class, number of transitions, the first one's target
            file.real(0.5)
            file.integer(state + 1)
            file.real(0.5)
        file.integer(-1, 0)  # the final state: no pdf, no transition
    file.token("</Topology>", "<Triples>")
    file.integer(len(triples))
    for triple in triples:
        file.integer(*triple)
    file.token("</Triples>", "<LogProbs>")
    logs = [log for phone, state, pdf in triples for log in hmm.log_transitions(phone, state, pdf)]
    file.vector(np.array([0.0, *logs]))
    file.token("</LogProbs>", "</TransitionModel>")


def cmvn_stats(cmvn: Cmvn) -> np.ndarray:
    """Kaldi's statistics of the training set, float64 (2, coefficients + 1), of features on the scale of 16 bits."""
    count, total = cmvn.train.count, cmvn.train.total
    squares = cmvn.train.squares + 2 * FULL_SCALE * total + count * FULL_SCALE**2
    return np.array([[*(total + count * FULL_SCALE), count], [*squares, 0.0]])


def fbank_options(config: FbankConfig) -> str:
    options = {"sample-frequency": config.sample_rate, "num-mel-bins": config.num_mel_bins,
               "frame-length": config.frame_length_ms, "frame-shift": config.frame_shift_ms,
               "low-freq": config.low_freq, "high-freq": config.high_freq,
               "preemphasis-coefficient": config.preemphasis, "dither": config.dither * 32768,
               "snip-edges": str(config.snip_edges).lower(), "use-energy": "false"}
    return "".join(f"--{name}={value}\n" for name, value in options.items())


EXPORTER = VoskExporter()
