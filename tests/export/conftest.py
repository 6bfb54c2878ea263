"""A recogniser of four words in a language of tones, exported as a real one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import soxr
import torch

from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import NetworkConfig, build_network
from asr_distill.decode.decoder import SearchConfig
from asr_distill.decode.graph import compile_hclg
from asr_distill.export.bundle import export_bundle
from asr_distill.features.cmvn import Cmvn, CmvnStats
from asr_distill.features.fbank import Fbank, FbankConfig
from asr_distill.hmm.model import HmmModel, MonophoneTree, base_phone, stress_groups
from asr_distill.lang.lang import LangConfig, prepare_lang
from asr_distill.lang.lexicon import Lexicon, Pronunciation

RATE, SHIFT = 16000, 160
WORDS = {"YES": ("A", "B"), "NO": ("C", "D", "A"), "UP": ("E", "C"), "STOP": ("B", "E", "D")}
ARPA = """\\data\\
ngram 1=6

\\1-grams:
-0.5 <s> 0
-0.7 </s>
""" + "".join(f"-0.7 {word} 0\n" for word in WORDS) + "\\end\\\n"


@dataclass(frozen=True)
class Spoken:
    samples: np.ndarray  # float32
    pdf_ids: np.ndarray  # per 10 ms
    words: tuple[str, ...]
    ends: tuple[float, ...]  # seconds at which each word ends


class ToneSpeech:
    """Every HMM state is a tone of 10 ms frames, in a band that 8 kHz audio holds too; silence is quiet noise."""

    def __init__(self, hmm: HmmModel):
        self.hmm = hmm
        mels = np.linspace(450, 2000, hmm.num_pdfs)
        self.tones = 700 * (np.exp(mels / 1127) - 1)  # Hz
        self.ids = {base_phone(phone): index for index, phone in enumerate(hmm.phones, 1)}

    def say(self, words: tuple[str, ...], seed: int, also: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
            ) -> Spoken:
        """`also`: pronunciations of words that the recogniser does not know."""
        spoken = {**WORDS, **also}
        rng = np.random.default_rng(seed)
        states: list[int] = []
        ends = []

        def phone(name: str) -> None:
            for state in range(self.hmm.states[self.ids[name] - 1]):
                pdf = self.hmm.tree.pdf(0, self.ids[name], 0, state)
                states.extend([pdf] * int(rng.integers(4, 8)) * (3 if name == "SIL" else 1))

        phone("SIL")
        for word in words:
            for name in spoken[word]:
                phone(name)
            ends.append(len(states) * SHIFT / RATE)
            if rng.random() < 0.5:
                phone("SIL")
        phone("SIL")
        pdf_ids = np.array(states)
        per_sample = np.repeat(pdf_ids, SHIFT)
        loud = np.where(per_sample == 0, 0.001, 0.1)  # pdf 0 is silence
        samples = loud * np.sin(2 * np.pi * np.cumsum(self.tones[per_sample]) / RATE)
        samples += rng.normal(0, 0.002, len(samples))
        return Spoken(samples.astype(np.float32), pdf_ids, words, tuple(ends))

    def utterances(self, count: int, seed: int) -> list[Spoken]:
        rng = np.random.default_rng(seed)
        return [self.say(tuple(rng.choice(list(WORDS), int(rng.integers(1, 6)))), 1000 * seed + index)
                for index in range(count)]


@dataclass(frozen=True)
class Toy:
    directory: Path
    speech: ToneSpeech
    figures: dict
    export: Callable[..., dict]


@pytest.fixture(scope="session")
def student(librispeech: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of real speech; half a minute, so for slow tests."""
    from real_student import small_student

    return small_student(librispeech, shared, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy")
    (root / "lm.arpa").write_text(ARPA)
    lexicon = Lexicon({word: [Pronunciation(phones)] for word, phones in WORDS.items()})
    lang = prepare_lang(lexicon, root / "lang", LangConfig(position_dependent=True), arpa=root / "lm.arpa")
    states = (1, *(3 for _ in lang.phones[1:]))  # silence: one state, as long as it lasts
    hmm = HmmModel(lang.phones, states, MonophoneTree(states, stress_groups(lang.phones)))  # A_B, A_I ...: one sound
    speech = ToneSpeech(hmm)
    model = train(speech)
    compile_hclg(lang, hmm, root / "graph")

    def export(out: Path, **changes: object) -> dict:
        parts = {"model": model, "hmm": hmm, "lang": lang, "graph_dir": root / "graph",
                 "search_config": SearchConfig(acoustic_scale=0.3), "fbank_config": FbankConfig(), **changes}
        return export_bundle(**parts, out=out, figures={"wer": {"test": 1.25}})  # type: ignore[arg-type]

    return Toy(root / "bundle", speech, export(root / "bundle"), export)


def train(speech: ToneSpeech) -> AcousticModel:
    """A small network on aligned frames; half of the audio without anything above 4 kHz."""
    fbank = Fbank(FbankConfig(), torch.device("cpu"))
    spoken = speech.utterances(60, seed=1)
    audio = [soxr.resample(soxr.resample(item.samples, RATE, RATE // 2), RATE // 2, RATE) if index % 2 else item.samples
             for index, item in enumerate(spoken)]
    frames = fbank([torch.from_numpy(samples) for samples in audio])
    cmvn = Cmvn("global", CmvnStats.of(torch.cat(frames).numpy()))
    config = NetworkConfig(layers=1, width=96, left=3, right=3)
    network = build_network(config, 40, speech.hmm.num_pdfs)
    windows, targets = [], []
    for item, raw in zip(spoken, frames, strict=True):
        normal = (raw - torch.tensor(cmvn.train.mean).float()) / torch.tensor(cmvn.train.std).float()
        padded = torch.cat([normal[:1].expand(3, -1), normal, normal[-1:].expand(3, -1)])
        windows.append(padded.unfold(0, 7, 1).transpose(1, 2)[:len(item.pdf_ids)])
        targets.append(torch.from_numpy(item.pdf_ids)[:len(raw)])
    inputs, labels = torch.cat(windows).contiguous(), torch.cat(targets)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        batch = torch.randint(0, len(inputs), (256,), generator=generator)
        loss = torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    counts = torch.bincount(labels, minlength=speech.hmm.num_pdfs).float() + 1
    return AcousticModel(network.eval(), cmvn, (counts / counts.sum()).log(), config)
