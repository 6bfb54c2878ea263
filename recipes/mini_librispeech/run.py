"""mini_librispeech: train-clean-5 to dev-clean-2, Kaldi's own quick benchmark.

    python recipes/mini_librispeech/run.py --set corpus.dir=LIBRISPEECH --set lang.lexicon=FILE --set lang.arpa=FILE

Without corpus.dir the audio is downloaded; without a lexicon or a language model so are LibriSpeech's own.
Every stage is one function below, in order; each fills `run.out`. `--list` prints them.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.targets import HardTargets
from asr_distill.corpus.librispeech import prepare
from asr_distill.corpus.manifest import load_split
from asr_distill.decode.graph import compile_hclg
from asr_distill.distill.soft_store import write_soft_targets
from asr_distill.distill.targets import SoftTargets
from asr_distill.export.bundle import export_bundle
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.features.compute import compute_store
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import align_store
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.mono import train_mono
from asr_distill.lang.build import build_lang
from asr_distill.lang.lang import Lang
from asr_distill.recipe import Recipe, StageRun, stage
from asr_distill.recipe_command import main
from asr_distill.report.collect import Evaluated, training_curves, write_results
from asr_distill.report.evaluation import Candidate, evaluate_all, search_of
from local.mini_librispeech import find_resources
from local.resources import TRAIN, Resources
from recipes.common import (
    evaluation_config,
    load_teachers,
    stores_of,
    systems_of,
    test_splits,
    training_data,
    tuning_store,
)
from recipes.settings import Settings


@stage(settings=["corpus"], resumable=True)
def corpus(run: StageRun) -> dict:
    """Audio and transcripts, validated, to lhotse manifests."""
    settings = run.settings.corpus
    resources, splits = find_resources(settings.dir, settings.test_ids, settings.download_dir, settings.base_url)
    resources.save(run.out)
    return prepare(resources.root, splits.subsets, run.out, utterance_ids=splits.utterance_ids,
                   workers=settings.workers, on_error=settings.on_error)


@stage(reads=["corpus"], settings=["corpus", "features"], resumable=True)
def features(run: StageRun) -> dict:
    """Log-mel filterbank frames of every split, computed in batches on the device."""
    root = Resources.load(run.input("corpus"), run.settings.corpus.dir).root
    return {split: compute_store(load_split(run.input("corpus"), split, root), run.out / split, run.settings.features,
                                 run.device, workers=run.settings.corpus.workers, label=f"features of {split}")
            for split in run.figures("corpus")}


@stage(reads=["corpus", "features"], settings=["corpus", "lang"], resumable=True)
def lang(run: StageRun) -> dict:
    """Words, pronunciations (g2p for unknown training words), n-gram model; L and G."""
    settings = Resources.load(run.input("corpus"), run.settings.corpus.dir).complete(run.settings.lang)
    transcripts = {split: [utterance.words for utterance in store.utterances]
                   for split, store in stores_of(run).items()}
    return build_lang(settings, transcripts, TRAIN, run.out)


@stage(reads=["features", "lang"], settings=["hmm"], resumable=True)
def mono(run: StageRun) -> dict:
    """Monophone GMM from a flat start; every frame of every split aligned to a pdf-id."""
    settings, lang = run.settings.hmm, Lang(run.input("lang"))
    stores = stores_of(run)
    hmm, gmm, figures = train_mono(stores[TRAIN], lang, settings.mono, run.out / "work", run.device)
    hmm.save(run.out)
    gmm.save(run.out)
    shares = {}
    for split, store in stores.items():
        alignment = align_store(gmm, store, hmm, lang, settings.align, run.device, label=f"aligning {split}")
        alignment.save(run.out / split)
        shares[split] = float(alignment.aligned.mean())
    return figures | {"aligned": shares}


@stage(reads=["lang", "mono"])
def graph(run: StageRun) -> dict:
    """The decoding graph HCLG."""
    return compile_hclg(Lang(run.input("lang")), HmmModel.load(run.input("mono")), run.out)


@stage(reads=["features", "mono"], settings=["data", "teachers"], resumable=True)
def teachers(run: StageRun) -> dict:
    """N networks on hard targets, alike but for their seeds."""
    settings = run.settings.teachers
    data, cmvn = training_data(run, settings.cmvn, settings.trainer)
    return {f"teacher{number}": fit(data, HardTargets(data.pdf_ids), cmvn, settings.network, settings.trainer,
                                    seed=seed, out=run.out / f"teacher{number}", label=f"teacher {number}")
            for number, seed in enumerate(settings.seeds, 1)}


@stage(reads=["features", "teachers"], settings=["distill"], resumable=True)
def soft_targets(run: StageRun) -> dict:
    """The ensemble's averaged posteriors at temperature T: top k and remainder of every training frame."""
    config = run.settings.distill.store
    ensemble = Ensemble(load_teachers(run.input("teachers"), run.device), config.mean)
    return write_soft_targets(ensemble, FrameStore(run.input("features") / TRAIN), run.out, config, run.device)


@stage(reads=["features", "mono", "soft_targets"], settings=["data", "distill", "student"], resumable=True)
def student(run: StageRun) -> dict:
    """The small network on soft and hard targets; the baseline: the same shape and updates on hard targets alone."""
    settings = run.settings.student
    data, cmvn = training_data(run, settings.cmvn, settings.trainer)
    targets = {"baseline": HardTargets(data.pdf_ids),
               "student": SoftTargets.open(run.input("soft_targets"), run.settings.distill.loss, data.pdf_ids)}
    return {name: fit(data, target, cmvn, settings.network, settings.trainer, seed=settings.seed,
                      out=run.out / name, label=name) for name, target in targets.items()}


@stage(reads=["features", "mono", "graph", "teachers", "student"], settings=["decode", "distill"], resumable=True)
def decode(run: StageRun) -> dict:
    """Each system: acoustic scale tuned on the tuning split, then the test splits decoded."""
    return evaluate_all(systems_of(run), run.input("graph"), tuning_store(run), test_splits(run),
                        evaluation_config(run.settings.decode), run.out, run.device)


@stage(reads=["features", "lang", "mono", "graph", "student", "decode"], settings=["features", "decode"],
       resumable=True)
def export(run: StageRun) -> dict:
    """The student as one directory that transcribes (ONNX, graph, words, settings), decoded as exported."""
    model = AcousticModel.load(run.input("student") / "student", run.device)
    search = search_of(run.figures("decode")["student"])
    bundle = run.out / "recogniser"
    figures = export_bundle(model, HmmModel.load(run.input("mono")), Lang(run.input("lang")), run.input("graph"),
                            search, run.settings.features, bundle)
    exported = Candidate("exported", "export", lambda: OnnxModel(bundle), figures["parameters"],
                         figures["network_bytes"])
    return figures | evaluate_all([exported], run.input("graph"), None, test_splits(run),
                                  evaluation_config(run.settings.decode, search=search), run.out, run.device)


@stage(reads=["corpus", "features", "mono", "teachers", "student", "decode", "export"],
       settings=["corpus", "features", "lang", "hmm", "data", "teachers", "distill", "student", "decode"])
def report(run: StageRun) -> dict:
    """Word error rates with intervals and paired tests: RESULTS.json, RESULTS.md, plots, error listings."""
    systems = [Evaluated(run.input("decode") / name) for name in run.figures("decode")]
    systems.append(Evaluated(run.input("export") / "exported"))
    teachers, students = run.input("teachers"), run.input("student")
    curves = training_curves({
        **{name: ("teacher", teachers / name) for name in run.figures("teachers")},
        "baseline": ("baseline", students / "baseline"), "student": ("student", students / "student")})
    write_results(
        run.out, run.recipe, systems=systems, curves=curves, stores=stores_of(run),
        pairs=[("ensemble", "baseline"), ("student", "baseline"), ("student", "ensemble"), ("exported", "student")],
        data=run.figures("corpus"), settings=run.settings.all(), device=str(run.device),
        seeds=[*run.settings.teachers.seeds, run.settings.student.seed], seconds=run.seconds_so_far(),
        command=shlex.join(["python", *sys.argv]))
    run.publish("RESULTS.json", "RESULTS.md", "RESULTS.txt", "training.png", "reliability.png", "wer.png")
    return {"systems": len(systems)}


STAGES = [corpus, features, lang, mono, graph, teachers, soft_targets, student, decode, export, report]
recipe = Recipe("mini_librispeech", Settings, ROOT / "conf" / "mini_librispeech.yaml", STAGES)

if __name__ == "__main__":
    sys.exit(main(recipe))
