"""The settings that the speech recipes share: one section a kind of work, each room's own dataclass inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.config import LATER, NO_RESULT
from asr_distill.decode.decoder import SearchConfig
from asr_distill.decode.rescore import RescoreConfig
from asr_distill.decode.tune import TuneConfig
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.specialists.config import SpecialistConfig
from asr_distill.executor import ExecutorSettings
from asr_distill.features.cmvn import CmvnKind, Stream
from asr_distill.features.fbank import FbankConfig
from asr_distill.hmm.adapt import FmllrConfig
from asr_distill.hmm.aligner import AlignConfig
from asr_distill.hmm.mono import MonoConfig
from asr_distill.hmm.sat import SatConfig
from asr_distill.hmm.triphone import LdaConfig, TriphoneConfig
from asr_distill.k2fsa import Backend
from asr_distill.lang.build import LangSettings
from asr_distill.lang.large import LargeLmSettings
from asr_distill.lang.pronprobs import PronunciationConfig
from recipes.transfer_settings import TransferSettings


@dataclass(frozen=True)
class CorpusSettings:
    """Where audio and transcripts come from."""

    dir: Path | None = None  # an existing LibriSpeech folder; without it the recipe downloads
    subsets: dict[str, tuple[str, ...]] = field(default_factory=dict)  # split -> folders (recipe librispeech)
    test_ids: Path | None = None  # utterance ids of the reported set, one a line, where a larger folder holds it
    download_dir: str = field(default="data", metadata=NO_RESULT)  # archives and audio that the recipe downloads
    base_url: str = field(default="", metadata=NO_RESULT)  # another mirror than OpenSLR
    tune_utterances: int = 400  # of the tuning split, spread evenly (adaptation decodes all of them); 0: all
    on_error: Literal["stop", "skip"] = "stop"  # skip: leave bad utterances out, listed in rejected.json
    workers: int = field(default=0, metadata=NO_RESULT)  # processes that read audio; 0 = one a core

    def __post_init__(self) -> None:
        if self.workers < 0 or self.tune_utterances < 0:
            raise ValueError(f"workers and tune_utterances must be at least 0, not {self.workers} and "
                             f"{self.tune_utterances}")


@dataclass(frozen=True)
class AlignSettings:
    """Alignment between the rungs of the ladder and of what networks train on, and speaker adaptation."""

    search: AlignConfig = AlignConfig()
    fmllr: FmllrConfig = FmllrConfig()


@dataclass(frozen=True)
class TeacherGroup:
    """Networks of one shape that differ in their seeds."""

    seeds: tuple[int, ...] = (1, 2, 3)
    stream: Stream = "raw"  # adapted: fMLLR features in place of log-mel
    cmvn: CmvnKind = "speaker"  # of no effect for the adapted stream, which is normalised globally
    realign: bool = False  # train on an alignment by the teachers of the groups before, not on the GMM's
    network: NetworkConfig = NetworkConfig(layers=4, width=1024)
    trainer: TrainerConfig = TrainerConfig()

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError("seeds must be a list of different numbers, one a teacher")


@dataclass(frozen=True)
class TeacherSettings:
    """The ensemble: groups of networks, in the order in which they are trained."""

    groups: dict[str, TeacherGroup] = field(default_factory=lambda: {"wide": TeacherGroup()})

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("groups must hold at least one group of teachers")
        if next(iter(self.groups.values())).realign:
            raise ValueError("the first group has no teachers before it to realign with")

    @property
    def adapted(self) -> bool:
        """Whether any of them hears speaker-adapted frames."""
        return any(group.stream == "adapted" for group in self.groups.values())

    @property
    def seeds(self) -> list[int]:
        return [seed for group in self.groups.values() for seed in group.seeds]


@dataclass(frozen=True)
class SpeedSettings:
    """Speed perturbation of what networks train on (the GMMs hear the audio as it is)."""

    factors: tuple[float, ...] = (1.0,)  # (0.9, 1.0, 1.1): Kaldi's three-way perturbation

    def __post_init__(self) -> None:
        if 1.0 not in self.factors:
            raise ValueError("factors must hold 1.0: the audio as it is")


@dataclass(frozen=True)
class StudentSettings:
    """The deployed network. The baseline is the same shape, trainer and number of updates on hard targets."""

    seed: int = 101
    cmvn: Literal["online", "global"] = "online"  # a deployed recogniser does not know the speaker
    network: NetworkConfig = NetworkConfig(layers=3, width=512)
    trainer: TrainerConfig = TrainerConfig()
    train_fraction: float = field(default=1.0, metadata=LATER)  # share of what the teachers are trained on

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction <= 1:
            raise ValueError(f"train_fraction must be in (0, 1], not {self.train_fraction}")


@dataclass(frozen=True)
class DistillSettings:
    store: SoftTargetConfig = SoftTargetConfig()
    loss: DistillConfig = DistillConfig()
    online: bool = field(default=False, metadata=LATER)  # no store: the teachers are asked while the student learns


@dataclass(frozen=True)
class RescoreSettings:
    """Rescoring of n-best lists."""

    paths: int = 200  # word sequences kept of each utterance
    grid: RescoreConfig = RescoreConfig()

    def __post_init__(self) -> None:
        if self.paths < 1:
            raise ValueError(f"paths must be at least 1, not {self.paths}")


@dataclass(frozen=True)
class DecodeSettings:
    """Search, and how its scale is tuned on the tuning split, which is never reported."""

    search: SearchConfig = SearchConfig()
    tune: TuneConfig = TuneConfig()
    rescore: RescoreSettings = RescoreSettings()  # with the large language model, where there is one
    first_pass: SearchConfig = SearchConfig(
        beam=11.0, max_active=3000, acoustic_scale=0.07, insertion_penalty=0.5)  # whose words speakers are adapted on
    systems: tuple[Literal["mono", "tri1", "tri2b", "tri3b", "baseline", "teachers", "ensemble", "student"], ...] = (
        "baseline", "teachers", "ensemble", "student")  # GMM rungs below tri3b need graphs of their own
    teachers: int = 0  # > 0: only so many are decoded, the rest scored by frames (they share teacher1's tuning anyway)
    words: bool = field(default=True, metadata=LATER)  # false: networks are scored by frames alone, nothing is decoded
    workers: int = field(default=0, metadata=NO_RESULT)  # search processes; 0 = one a core
    backend: Backend = field(default="auto", metadata=LATER)  # auto: k2 on a GPU where it is installed, else cpu

    def __post_init__(self) -> None:
        if "student" not in self.systems:
            raise ValueError("systems must name the student: it is exported with the search tuned for it")
        if self.workers < 0 or self.teachers < 0:
            raise ValueError("workers and teachers must be at least 0")


@dataclass(frozen=True)
class SpecialistSettings(SpecialistConfig):
    """Specialists beside one teacher (the paper's section 5): stages after the report, off by default."""

    enabled: bool = False
    generalist: int = 1  # number of the teacher that they start from, and stand beside
    sets_from: Literal["generalist", "ensemble"] = "generalist"  # whose posteriors say which senones are confused
    seed: int = 201
    trainer: TrainerConfig = TrainerConfig(learning_rate=3e-4, warmup_updates=30, max_updates=300, evaluate_updates=100)
    control: Literal["all", "one"] = "all"  # the generalist alone is trained on for as many updates as all, or one
    student: bool = False  # distil a student from generalist and specialists

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.generalist < 1:
            raise ValueError(f"generalist must be the number of a teacher, from 1, not {self.generalist}")


@dataclass(frozen=True)
class Settings:
    corpus: CorpusSettings = CorpusSettings()
    features: FbankConfig = FbankConfig()
    lang: LangSettings = LangSettings()
    large_lm: LargeLmSettings = LargeLmSettings()
    mono: MonoConfig = MonoConfig()
    tri1: TriphoneConfig = TriphoneConfig()
    tri2b: LdaConfig = LdaConfig()
    tri3b: SatConfig = SatConfig()
    pronunciations: PronunciationConfig = PronunciationConfig()
    align: AlignSettings = AlignSettings()
    speed: SpeedSettings = SpeedSettings()
    data: DataConfig = DataConfig()
    teachers: TeacherSettings = TeacherSettings()
    transfer: TransferSettings = TransferSettings()
    distill: DistillSettings = DistillSettings()
    student: StudentSettings = StudentSettings()
    decode: DecodeSettings = field(default_factory=DecodeSettings)
    specialists: SpecialistSettings = SpecialistSettings()
    executor: ExecutorSettings = ExecutorSettings()  # --executor, --workers and --scheduler win
