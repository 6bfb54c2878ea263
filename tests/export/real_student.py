"""A small student of real speech: the shortest utterances of the slice, learned by heart within seconds."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path

import torch

from asr_distill.acoustic.config import DataConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import NetworkConfig, build_network
from asr_distill.acoustic.targets import HardTargets
from asr_distill.corpus.librispeech import prepare
from asr_distill.corpus.manifest import load_split
from asr_distill.decode.decoder import SearchConfig
from asr_distill.decode.graph import compile_hclg
from asr_distill.export.bundle import export_bundle
from asr_distill.features.cmvn import Cmvn, CmvnKind
from asr_distill.features.compute import compute_store
from asr_distill.features.fbank import FbankConfig
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import AlignConfig, align_store
from asr_distill.hmm.mono import MonoConfig, train_mono
from asr_distill.lang.lang import LangConfig, prepare_lang
from asr_distill.lang.lexicon import Lexicon
from asr_distill.lang.ngram import NgramConfig, train_arpa

CPU = torch.device("cpu")
MONO = MonoConfig(utterances=0, iterations=12, gaussians=300, growth_iterations=8, realign=(1, 2, 3, 4, 6, 8, 10))
TDNN = NetworkConfig(kind="tdnn", layers=3, width=160, final=80, stride=3, norm="batch", skip=0.66)
TRAINER = TrainerConfig(epochs=60, batch=600, chunk=150, learning_rate=3e-3, precision="float32", tensorboard=False)


@dataclass(frozen=True)
class Student:
    recogniser: Path
    utterances: list[tuple[str, Path, tuple[str, ...]]]  # id, audio, words

    def audio(self, count: int) -> list[Path]:
        return [path for _, path, _ in self.utterances[:count]]


def small_student(librispeech: Path, shared: Path, work: Path, *, cmvn: CmvnKind = "online",
                  network: NetworkConfig = TDNN, utterances: int = 20) -> Student:
    files = sorted(librispeech.glob("train-clean-5/*/*/*.flac"), key=lambda path: path.stat().st_size)[:utterances]
    prepare(librispeech, {"train": "train-clean-5"}, work / "corpus",
            utterance_ids={"train": frozenset(path.stem for path in files)})
    compute_store(load_split(work / "corpus", "train", librispeech), work / "store", FbankConfig(), CPU, workers=1,
                  label="features")
    store = FrameStore(work / "store")
    spoken = [utterance.words for utterance in store.utterances]
    (work / "lexicon.txt").write_bytes(lzma.decompress((shared / "reference" / "lexicon.txt.xz").read_bytes()))
    known = Lexicon.read(work / "lexicon.txt")
    lexicon = known.restricted(word for words in spoken for word in words if word in known)
    (work / "text.txt").write_text("".join(" ".join(words) + "\n" for words in spoken))
    train_arpa(work / "text.txt", work / "lm.arpa", NgramConfig(order=2))
    lang = prepare_lang(lexicon, work / "lang", LangConfig(position_dependent=True), arpa=work / "lm.arpa")
    hmm, gmm, _ = train_mono(store, lang, MONO, work / "mono", CPU)
    alignment = align_store(gmm, store, hmm, lang, AlignConfig(), CPU, "aligning")
    own = Cmvn(cmvn, store.total_stats)
    shape = build_network(network, own.dimension, alignment.num_pdfs)
    data = TrainingData.build(store, alignment, own, DataConfig(heldout_fraction=0.0), CPU, torch.float32,
                              left=shape.left, right=shape.right)
    fit(data, HardTargets(data.pdf_ids), own, network, TRAINER, seed=1, out=work / "student", label="student")
    compile_hclg(lang, hmm, work / "graph")
    export_bundle(AcousticModel.load(work / "student", CPU), hmm, lang, work / "graph",
                  SearchConfig(acoustic_scale=0.15, beam=14.0), FbankConfig(), work / "recogniser")
    found = {path.stem: path for path in files}
    return Student(work / "recogniser", [(item.id, found[item.id], item.words) for item in store.utterances])
