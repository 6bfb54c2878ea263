"""An experiment folder as a recipe leaves it, of the toy recogniser's tones: real audio, features, export; words that
three systems might have heard, with errors made on purpose.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from asr_distill.corpus.librispeech import prepare
from asr_distill.corpus.manifest import load_split
from asr_distill.decode.decoder import Hypothesis
from asr_distill.decode.journal import JOURNAL, write_hypotheses
from asr_distill.features.compute import compute_store
from asr_distill.features.fbank import FbankConfig
from asr_distill.features.store import FrameStore
from asr_distill.files import write_json
from asr_distill.report.collect import Evaluated, comparisons_of, references_of, system_of
from asr_distill.report.results import Results, SplitData

SPLIT = "test_clean"
ROLES = {"baseline": "baseline", "teacher1": "teacher", "ensemble": "ensemble", "student": "student"}
SIZES = {"baseline": 4000, "teacher1": 9000, "ensemble": 18_000, "student": 4000}  # parameters
ERRORS = {"baseline": 0.5, "teacher1": 0.2, "ensemble": 0.1, "student": 0.3}  # chance of an edit at a word
UTTERANCES, SEED = 24, 7
VOCABULARY = ("YES", "NO", "UP", "STOP")


def make_experiment(toy: Any, root: Path, *, utterances: int = UTTERANCES) -> Path:
    """`root`/exp, of a corpus in `root`/corpus. `toy`: of tests/export/conftest.py."""
    corpus, exp = root / "corpus", root / "exp"
    _write_corpus(toy, corpus, utterances)
    figures = prepare(corpus, {SPLIT: "test-clean"}, exp / "01_corpus", workers=1)
    write_json(exp / "01_corpus" / "resources.json", {"root": str(corpus)})
    cuts = load_split(exp / "01_corpus", SPLIT, corpus)
    compute_store(cuts, exp / "02_features" / SPLIT, FbankConfig(), torch.device("cpu"), workers=1,
                  label="features")
    store = FrameStore(exp / "02_features" / SPLIT)
    rng = np.random.default_rng(3)
    for name, role in ROLES.items():
        _write_system(exp / "05_decode" / name, name, role, store, rng)
        write_json(exp / "04_networks" / name / "training.json", training(rng, role))
    shutil.copytree(toy.directory, exp / "06_export" / "recogniser")
    for stage in ("01_corpus", "02_features", "04_networks", "05_decode", "06_export"):
        write_json(exp / stage / "stage.json", {"stage": stage[3:]})
    evaluated = [Evaluated(exp / "05_decode" / name) for name in ROLES]
    stores = {SPLIT: store}
    results = Results.of_now(
        "toy", device="cpu", seeds=[1, 2], settings={"student": {"network": {"width": 96}}},
        stages={"corpus": 1.25, "features": 2.5, "decode": 90.0}, data={SPLIT: SplitData(**figures[SPLIT])},
        systems=[system_of(item, stores) for item in evaluated],
        comparisons=comparisons_of(evaluated, [("student", "baseline"), ("student", "ensemble")], stores))
    results.write(exp / "RESULTS.json")
    return exp


def training(rng: np.random.Generator, role: str) -> dict[str, Any]:
    """A training.json; the first evaluation has no held-out frames, as where there are none."""
    history = [{"epoch": epoch, "update": 100 * epoch, "train_loss": 2.0 / epoch + 0.1 * rng.random(),
                "heldout_accuracy": None if epoch == 1 else 0.6 + 0.05 * epoch + 0.02 * rng.random(),
                "heldout_cross_entropy": None if epoch == 1 else 1.5 / epoch + 0.1 * rng.random()}
               for epoch in range(1, 6)]
    return {"history": history, "train_accuracy": None if role == "teacher" else 0.93}


def _write_corpus(toy: Any, corpus: Path, utterances: int) -> None:
    for number, spoken in enumerate(toy.speech.utterances(utterances, seed=SEED)):
        speaker = str(10 + number % 3)
        folder = corpus / "test-clean" / speaker / "1"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{speaker}-1-{number:04d}"
        soundfile.write(folder / f"{name}.flac", spoken.samples, 16000, subtype="PCM_16")
        with open(folder / f"{speaker}-1.trans.txt", "a") as file:
            file.write(f"{name} {' '.join(spoken.words)}\n")


def _write_system(directory: Path, name: str, role: str, store: FrameStore, rng: np.random.Generator) -> None:
    hypotheses = [Hypothesis(id, heard(words, ERRORS[name], rng), 1.0, 0.01, 100, True, 1.0, 1.0)
                  for id, words in references_of(store).items()]
    write_hypotheses(directory / SPLIT / JOURNAL, hypotheses)
    bins = {"count": [10, 20, 70], "confidence": [1.5, 10.0, 60.0], "correct": [2, 11, 63]}
    write_json(directory / "system.json", {
        "name": name, "role": role, "parameters": SIZES[name], "bytes": 4 * SIZES[name], "targets": 15,
        "decoded": True, "splits": {SPLIT: {"rtf": 1e-6 * SIZES[name], "frame_accuracy": 80.0, "cross_entropy": 0.7}},
        "reliability": {SPLIT: bins}})


def heard(words: tuple[str, ...], chance: float, rng: np.random.Generator) -> tuple[str, ...]:
    """With words substituted, deleted and inserted."""
    found: list[str] = []
    for word in words:
        other = str(rng.choice(VOCABULARY))
        edit = int(rng.integers(3)) if rng.random() < chance else 3
        found += [[other], [], [word, other], [word]][edit]
    return tuple(found)
