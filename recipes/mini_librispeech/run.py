"""mini_librispeech: train-clean-5 to dev-clean-2, Kaldi's own quick benchmark.

    python recipes/mini_librispeech/run.py --set corpus.dir=LIBRISPEECH --set lang.lexicon=FILE --set lang.arpa=FILE

Without corpus.dir the audio is downloaded; without a lexicon or a language model so are LibriSpeech's own.
Every stage is one function, here or (features to rungs) in recipes/foundation.py; each fills `run.out`.
`--list` prints them.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.targets import HardTargets, Targets
from asr_distill.corpus.librispeech import prepare
from asr_distill.distill.online import OnlineTargets, save_ensemble
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.distill.targets import SoftTargets
from asr_distill.export.bundle import export_bundle
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import Lang
from asr_distill.logs import log
from asr_distill.recipe import Recipe, StageRun, stage
from asr_distill.recipe_command import main
from asr_distill.report.collect import Evaluated, training_curves, write_results
from asr_distill.report.evaluation import Candidate, evaluate_all, search_of
from local.mini_librispeech import find_resources
from recipes import foundation, specialists, transfer
from recipes.common import (
    EVALUATION,
    FINAL,
    RUNGS,
    baseline_system,
    decoder_is_there,
    ensemble_system,
    evaluate,
    evaluation_config,
    load_ensemble,
    reported_splits,
    split_figures,
    stores_of,
    student_system,
    teacher_systems,
)
from recipes.settings import Settings
from recipes.teachers import train_teachers
from recipes.transfer import HEARD, HEARING, check_streams, clean_store, heard_network, noisy_data, noisy_splits
from recipes.work import work_of

ENSEMBLE = [f"distill.store.{name}" for name in ("teachers", "chosen", "weights", "mean")]  # makes one of the teachers
DECODED = ["decode_baseline", "decode_teachers", "decode_ensemble", "decode_student"]


@stage(settings=["corpus"], resumable=True)
def corpus(run: StageRun) -> dict:
    """Audio and transcripts, validated, to lhotse manifests."""
    settings = run.settings.corpus
    resources, splits = find_resources(settings.dir, settings.test_ids, settings.download_dir, settings.base_url,
                                       settings.tune_utterances)
    resources.save(run.out)
    return prepare(resources.root, splits.subsets, run.out, utterance_ids=splits.utterance_ids,
                   workers=settings.workers, on_error=settings.on_error, executor=run.executor)


@stage(reads=["features", "pronunciations", "align"], settings=["data", "teachers", "align", "transfer.hidden"],
       resumable=True)
def teachers(run: StageRun) -> dict:
    """N networks of one shape or several, on hard targets."""
    return train_teachers(run)


@stage(reads=["features", "align", "teachers", "untranscribed"], settings=["distill.store", "distill.online"],
       resumable=True)
def soft_targets(run: StageRun) -> dict:
    """The ensemble's averaged posteriors of every training frame at temperature T; online: the ensemble itself."""
    ensemble = check_streams(run, load_ensemble(run))
    if run.settings.distill.online:
        return save_ensemble(ensemble, run.out)
    return write_soft_targets(ensemble, clean_store(run), run.out, run.settings.distill.store, run.device,
                              executor=run.executor)


@stage(reads=HEARD, settings=["data", "student", *HEARING], resumable=True)
def baseline(run: StageRun) -> dict:
    """The student's shape, trainer and number of updates on hard targets alone."""
    return heard_network(run, "baseline", lambda data: HardTargets(data.pdf_ids))


@stage(reads=[*HEARD, "soft_targets"], settings=["data", "distill", "student", *HEARING, "transfer.hear_hidden"],
       resumable=True)
def student(run: StageRun) -> dict:
    """The small network on soft and hard targets."""
    return heard_network(run, "student", lambda data: _soft_targets(run, data), unaligned=True)


@stage(reads=[*EVALUATION, "noisy_test", "baseline"], settings=["decode"], resumable=True,
       needs=decoder_is_there)
def decode_baseline(run: StageRun) -> dict:
    """The baseline: acoustic scale tuned on the tuning split, then the test splits decoded."""
    return evaluate(run, baseline_system(run), noisy_splits(run))


@stage(reads=[*EVALUATION, "teachers"], settings=["decode"], resumable=True,
       needs=decoder_is_there)
def decode_teachers(run: StageRun) -> dict:
    """Each teacher, tuned and decoded likewise."""
    return evaluate(run, teacher_systems(run))


@stage(reads=[*EVALUATION, "teachers"], settings=["decode", *ENSEMBLE], resumable=True,
       needs=decoder_is_there)
def decode_ensemble(run: StageRun) -> dict:
    """The teachers' mean, tuned and decoded likewise."""
    return evaluate(run, ensemble_system(run))


@stage(reads=[*EVALUATION, "noisy_test", "student"], settings=["decode"], resumable=True,
       needs=decoder_is_there)
def decode_student(run: StageRun) -> dict:
    """The student, tuned and decoded likewise."""
    return evaluate(run, student_system(run), noisy_splits(run))


@stage(reads=["features", "pronunciations", "align", "graph", "adapt", "student", "decode_student"],
       settings=["features", "decode"], resumable=True, revision=2)
def export(run: StageRun) -> dict:
    """The student as one directory that transcribes (ONNX, graph, words, settings), decoded as exported."""
    model = AcousticModel.load(run.input("student") / "student", run.device)
    search = dataclasses.replace(search_of(run.figures("decode_student")["student"]), nbest=0)
    bundle = run.out / "recogniser"
    graph = run.input("graph") / FINAL
    figures = export_bundle(model, HmmModel.load(run.input("align")), Lang(run.input("pronunciations")), graph,
                            search, run.settings.features, bundle)
    exported = Candidate("exported", "export", lambda: OnnxModel(bundle), figures["parameters"],
                         figures["network_bytes"], decoded=run.settings.decode.words)
    return figures | evaluate_all([exported], graph, None, reported_splits(run),
                                  evaluation_config(run, search=search), run.out, run.device)


@stage(reads=["corpus", "features", "lang", "align", "large_lm", "rungs", "teachers", "baseline", "student",
              "noisy_test", *DECODED, "export"],
       settings=["corpus", "features", "speed", "lang", *RUNGS, "pronunciations", "align", "data", "teachers",
                 "transfer", "distill", "student", "decode"])
def report(run: StageRun) -> dict:
    """Word error rates with intervals and paired tests: RESULTS.json, RESULTS.md, plots, error listings."""
    systems = [Evaluated(run.input(stage) / name) for stage in ("rungs", *DECODED) for name in run.figures(stage)]
    systems.append(Evaluated(run.input("export") / "exported"))
    curves = training_curves({
        **{name: ("teacher", run.input("teachers") / name) for name in run.figures("teachers")},
        "baseline": ("baseline", run.input("baseline") / "baseline"),
        "student": ("student", run.input("student") / "student")})
    noisy, data = noisy_splits(run), split_figures(run)
    write_results(
        run.out, run.recipe, systems=systems, curves=curves,
        stores=stores_of(run) | {name: split.store for name, split in noisy.items()},
        pairs=[("ensemble", "baseline"), ("student", "baseline"), ("student", "ensemble"), ("exported", "student")],
        data=data | noisy_data(run, data), settings=run.settings.all(), device=str(run.device),
        seeds=[*run.settings.teachers.seeds, run.settings.student.seed], stages=run.stage_seconds(),
        command=shlex.join(["python", *sys.argv]))
    run.publish("RESULTS.json", "RESULTS.md", "RESULTS.txt", "training.png", "reliability.png", "wer.png")
    return {"systems": len(systems)}


def _soft_targets(run: StageRun, data: TrainingData) -> Targets:
    """What the student learns: stored, or asked of the teachers as it goes."""
    settings, made = run.settings.distill, run.input("soft_targets")
    if not settings.online:
        return SoftTargets.open(made, settings.loss, data.pdf_ids, rows=data.target_rows)
    if run.settings.student.trainer.chunk == 1:
        log.warning("distill.online: with student.trainer.chunk=1 the teachers hear their whole context for each "
                    "frame; chunk=30 or more is several times as fast")
    return OnlineTargets.open(made, clean_store(run), settings.store, settings.loss, data.pdf_ids, run.device,
                              rows=data.target_rows)


STAGES = [corpus, *foundation.STAGES, teachers, *transfer.STAGES, soft_targets, baseline, student,
          transfer.noisy_test, decode_baseline, decode_teachers, decode_ensemble, decode_student, export, report,
          *specialists.STAGES]
recipe = Recipe("mini_librispeech", Settings, ROOT / "conf" / "mini_librispeech.yaml", STAGES,
                work=work_of)

if __name__ == "__main__":
    sys.exit(main(recipe))
