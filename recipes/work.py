"""How much work each stage of the speech recipes is, for `asr-distill plan`: hours by passes, frames by parameters."""

from __future__ import annotations

from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.network import build_network, num_parameters
from asr_distill.hmm.mono import MonoConfig
from asr_distill.hmm.triphone import TriphoneConfig
from asr_distill.plan.work import Data, Training, Work, training_work
from local.resources import TRAIN, TUNE
from recipes.common import RUNGS
from recipes.settings import Settings

FRAMES_AN_HOUR = 360_000
MONO_PDFS = 123  # 40 phones of three states, and silences: its Gaussians are dealt out over about so many


def work_of(settings: Settings, data: Data) -> dict[str, Work]:
    """Stage -> its work, for the stages from corpus to report. Specialists, noisy and untranscribed transfer sets are
    not counted."""
    train = data.hours[TRAIN]
    reported = sum(hours for split, hours in data.hours.items() if split not in (TRAIN, TUNE))
    heard = train * sum(1 / factor for factor in settings.speed.factors)  # what networks train on
    speeds = 0.0 if settings.speed.factors == (1.0,) else heard
    everything = train + data.hours[TUNE] + reported
    frames = heard * FRAMES_AN_HOUR * (1 - settings.data.heldout_fraction) * settings.data.train_fraction
    bands = settings.features.num_mel_bins

    def network(config: NetworkConfig, trainer: TrainerConfig | None, coefficients: int = bands) -> Training:
        seen = heard * FRAMES_AN_HOUR if trainer is None else (
            trainer.max_updates * trainer.batch if trainer.max_updates else trainer.epochs * frames)
        return Training(config.kind, num_parameters(build_network(config, coefficients, data.pdfs)), seen)

    groups = settings.teachers.groups.values()
    adapted = settings.tri2b.dimension
    teachers = [(group.network, group.trainer, adapted if group.stream == "adapted" else bands)
                for group in groups for _ in group.seeds]
    student = training_work([network(settings.student.network, settings.student.trainer)])
    tuned = settings.decode.tune
    share = min(1.0, tuned.utterances / data.utterances[TUNE]) * data.hours[TUNE]
    one_system = reported + share * len(tuned.acoustic_scales) * len(tuned.insertion_penalties)
    systems = settings.decode.systems
    many = len(teachers) if "teachers" in systems else 0
    scored = one_system if settings.decode.words else 0.0
    return {
        "corpus": Work(everything, "cores"),
        "features": Work(everything + speeds, "cores"),
        "lang": Work(0.0),
        "mono": _passes(settings.mono, MONO_PDFS, data),
        **{rung: _passes(getattr(settings, rung), getattr(settings, rung).tree.leaves, data)
           for rung in ("tri1", "tri2b", "tri3b")},
        "pronunciations": Work(train),
        "align": Work(everything + speeds, "cores"),
        "large_lm": Work(0.0),
        "graph": Work(0.0),
        "adapt": Work(2 * (data.hours[TUNE] + reported), "cores"),
        "rungs": Work(one_system * len([rung for rung in RUNGS if rung in systems]), "cores"),
        "teachers": training_work([network(*teacher) for teacher in teachers]),
        "untranscribed": Work(0.0),
        "transfer": Work(0.0),
        "soft_targets": training_work([network(config, None, width) for config, _, width in teachers], asked=True),
        "baseline": student,
        "student": student,
        "noisy_test": Work(0.0),
        "decode_baseline": Work(scored * ("baseline" in systems), "cores"),
        "decode_teachers": Work(reported * many if settings.decode.words else 0.0, "cores"),
        "decode_ensemble": Work(scored * ("ensemble" in systems), "cores"),
        "decode_student": Work(scored, "cores"),
        "export": Work(reported, "cores"),
        "report": Work(0.0),
    }


def _passes(config: MonoConfig | TriphoneConfig, pdfs: int, data: Data) -> Work:
    """EM over so many of the utterances, a frame against its pdf's Gaussians; then the whole split aligned once."""
    hours, limit = data.hours[TRAIN], config.utterances
    used = hours * min(1.0, limit / data.utterances[TRAIN]) if limit else hours
    return Work((used * (config.iterations + len(config.realign)) + hours) * config.gaussians / pdfs, "cores")
