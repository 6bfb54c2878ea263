"""The settings that the speech recipes share: one section a kind of work, each room's own dataclass inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.config import NO_RESULT
from asr_distill.decode.decoder import SearchConfig
from asr_distill.decode.tune import TuneConfig
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.features.cmvn import CmvnKind
from asr_distill.features.fbank import FbankConfig
from asr_distill.hmm.aligner import AlignConfig
from asr_distill.hmm.mono import MonoConfig
from asr_distill.lang.build import LangSettings


@dataclass(frozen=True)
class CorpusSettings:
    """Where audio and transcripts come from."""

    dir: Path | None = None  # an existing LibriSpeech folder; without it the recipe downloads
    subsets: dict[str, tuple[str, ...]] = field(default_factory=dict)  # split -> folders (recipe librispeech)
    test_ids: Path | None = None  # utterance ids of the reported set, one a line, where a larger folder holds it
    download_dir: str = field(default="data", metadata=NO_RESULT)  # archives and audio that the recipe downloads
    base_url: str = field(default="", metadata=NO_RESULT)  # another mirror than OpenSLR
    on_error: Literal["stop", "skip"] = "stop"  # skip: leave bad utterances out, listed in rejected.json
    workers: int = field(default=0, metadata=NO_RESULT)  # processes that read audio; 0 = one a core

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, not {self.workers}")


@dataclass(frozen=True)
class HmmSettings:
    mono: MonoConfig = MonoConfig()
    align: AlignConfig = AlignConfig()


@dataclass(frozen=True)
class TeacherSettings:
    """N networks that differ in their seeds."""

    seeds: tuple[int, ...] = (1, 2, 3)
    cmvn: CmvnKind = "speaker"
    network: NetworkConfig = NetworkConfig(layers=4, width=1024)
    trainer: TrainerConfig = TrainerConfig()

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError("seeds must be a list of different numbers, one a teacher")


@dataclass(frozen=True)
class StudentSettings:
    """The deployed network. The baseline is the same shape, trainer and number of updates on hard targets."""

    seed: int = 101
    cmvn: Literal["online", "global"] = "online"  # a deployed recogniser does not know the speaker
    network: NetworkConfig = NetworkConfig(layers=3, width=512)
    trainer: TrainerConfig = TrainerConfig()


@dataclass(frozen=True)
class DistillSettings:
    store: SoftTargetConfig = SoftTargetConfig()
    loss: DistillConfig = DistillConfig()


@dataclass(frozen=True)
class DecodeSettings:
    """Search, and how its scale is tuned on the tuning split, which is never reported."""

    search: SearchConfig = SearchConfig()
    tune: TuneConfig = TuneConfig()
    systems: tuple[Literal["gmm", "baseline", "teachers", "ensemble", "student"], ...] = (
        "baseline", "teachers", "ensemble", "student")
    teachers: int = 0  # > 0: only so many are decoded, the rest scored by frames (they share teacher1's tuning anyway)
    workers: int = field(default=0, metadata=NO_RESULT)  # search processes; 0 = one a core

    def __post_init__(self) -> None:
        if "student" not in self.systems:
            raise ValueError("systems must name the student: it is exported with the search tuned for it")
        if self.workers < 0 or self.teachers < 0:
            raise ValueError("workers and teachers must be at least 0")


@dataclass(frozen=True)
class Settings:
    corpus: CorpusSettings = CorpusSettings()
    features: FbankConfig = FbankConfig()
    lang: LangSettings = LangSettings()
    hmm: HmmSettings = HmmSettings()
    data: DataConfig = DataConfig()
    teachers: TeacherSettings = TeacherSettings()
    distill: DistillSettings = DistillSettings()
    student: StudentSettings = StudentSettings()
    decode: DecodeSettings = field(default_factory=DecodeSettings)

    def __post_init__(self) -> None:
        for name, network in (("teachers", self.teachers.network), ("student", self.student.network)):
            if network.left > self.data.left or network.right > self.data.right:
                raise ValueError(f"{name}.network looks {network.left} frames back and {network.right} ahead, data "
                                 f"keeps {self.data.left} and {self.data.right}: raise data.left and data.right")
