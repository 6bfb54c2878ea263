"""Stages of the paper's section 5 on senones: specialists beside one teacher. Off unless settings.specialists says so.

They come after the report, so that experiments made before there were any keep their stages' numbers. What they cost
and how to run them alone (`asr-distill study conf/study/specialists.yaml`) is in docs/specialists.md.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.config import TrainerConfig
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.precision import settled
from asr_distill.acoustic.targets import HardTargets
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.distill.specialists.clusters import CLUSTERS, ClusterResult, cluster_store
from asr_distill.distill.specialists.coverage import coverage_counts, coverage_text
from asr_distill.distill.specialists.model import GeneralistWithSpecialists, load_combined
from asr_distill.distill.targets import SoftTargets
from asr_distill.errors import UserError
from asr_distill.files import read_json, write_json, write_text
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.pdf_names import pdf_phones
from asr_distill.logs import log
from asr_distill.recipe import StageRun, stage
from asr_distill.report.collect import Evaluated, comparisons_of, system_of
from asr_distill.report.evaluation import Candidate
from asr_distill.report.results import Results, Role, SplitData
from asr_distill.report.specialists_page import SPECIALISTS, page
from recipes.common import (
    EVALUATION,
    decoding_stores,
    evaluate,
    load_teachers,
    model_bytes,
    network_store,
    reported_splits,
    small_network,
    split_figures,
    training_data,
    training_split,
)
from recipes.specialist_trainings import train_specialists

MODELS = ["teachers", "specialists", "control"]  # what the systems are made of
SYSTEMS = ("generalist", "control", "control_mean", "combined")  # each is measured against the first
COMPARED = [("combined", "generalist"), ("control", "generalist"), ("control_mean", "generalist"),
            ("combined", "control_mean")]  # in word error rates
PAIRS = (("generalist", "combined"), ("generalist", "control"), ("generalist", "control_mean"),
         ("control_mean", "combined"))  # of the tables by coverage
COVERAGE = "coverage.json"


def optional(*switches: str) -> Callable[[Callable[[StageRun], dict]], Callable[[StageRun], dict]]:
    """A stage that has nothing to do unless settings.specialists has all of `switches` on."""
    def wrap(function: Callable[[StageRun], dict]) -> Callable[[StageRun], dict]:
        @functools.wraps(function)
        def run_if_wanted(run: StageRun) -> dict:
            off = [name for name in switches if not getattr(run.settings.specialists, name)]
            if off:
                log.info("nothing to do: specialists.%s is off", off[0])
                return {}
            return function(run)
        return run_if_wanted
    return wrap


@stage(reads=["features", "align", "teachers"],
       settings=["specialists.enabled", "specialists.generalist", "specialists.sets", "specialists.sets_from"])
@optional("enabled")
def clusters(run: StageRun) -> dict:
    """Sets of senones that the generalist (one teacher) takes for each other."""
    model: PosteriorModel = generalist_of(run)
    if run.settings.specialists.sets_from == "ensemble":
        model = Ensemble(load_teachers(run.input("teachers"), run.device))
    found = cluster_store(model, network_store(run), run.settings.specialists.sets, run.out)
    return {"sizes": [len(members) for members in found.sets]} | found.figures


@stage(reads=["features", "align", "teachers", "clusters"],
       settings=["data", "specialists.enabled", "specialists.generalist", "specialists.dustbin",
                 "specialists.special_share", "specialists.trainer", "specialists.seed"], resumable=True)
@optional("enabled")
def specialists(run: StageRun) -> dict:
    """One network for each set, from the generalist's weights: the set's senones and a dustbin."""
    return train_specialists(run, run.input("teachers") / generalist_name(run), alignment_of(run), trainer_of(run))


@stage(reads=["features", "align", "teachers", "specialists"],
       settings=["data", "specialists.enabled", "specialists.generalist", "specialists.trainer", "specialists.seed",
                 "specialists.control"], resumable=True)
@optional("enabled")
def control(run: StageRun) -> dict:
    """The generalist alone, trained on for as many updates as the specialists were: what more training would bring."""
    settings, model, trainer = run.settings.specialists, generalist_of(run), trainer_of(run)
    counts = [figures["updates"] for figures in run.figures("specialists").values()]
    updates = sum(counts) if settings.control == "all" else max(counts)
    data = training_data(run, network_store(run), Alignment.load(alignment_of(run)), model.cmvn, model.config, trainer)
    return {"control": fit(data, HardTargets(data.pdf_ids), model.cmvn, model.config,
                           dataclasses.replace(trainer, max_updates=updates), seed=settings.seed,
                           out=run.out / "control", label="control", initial=model.network.state_dict())}


@stage(reads=["features", "align", "adapt", *MODELS],
       settings=["specialists.enabled", "specialists.generalist", "specialists.active_top"])
@optional("enabled")
def coverage(run: StageRun) -> dict:
    """The change of frame accuracy by how many specialists cover the correct senone (the paper's table 4)."""
    models = {name: load_system(run, name) for name in SYSTEMS}
    combined = models["combined"]
    assert isinstance(combined, GeneralistWithSpecialists)
    found: dict[str, list[dict[str, Any]]] = {}
    for split, reported in reported_splits(run).items():
        assert reported.alignment is not None
        counts = coverage_counts(models, combined.coverage, reported.store, reported.alignment,
                                 label=f"coverage on {split}")
        found[split] = []
        for reference, system in PAIRS:
            rows = counts.table(reference, system)
            log.info("%s, %s against %s:\n%s", split, system, reference, coverage_text(rows, reference, system))
            found[split].append({"reference": reference, "system": system,
                                 "rows": [dataclasses.asdict(row) for row in rows]})
    write_json(run.out / COVERAGE, found)
    return {split: {f"{table['system']} - {table['reference']}": 100 * table["rows"][-1]["difference"]
                    for table in tables} for split, tables in found.items()}


@stage(reads=["features", "align", "teachers", "specialists"],
       settings=["specialists.enabled", "specialists.generalist", "specialists.active_top", "specialists.student",
                 "distill.store"], resumable=True)
@optional("enabled", "student")
def specialist_targets(run: StageRun) -> dict:
    """Soft targets from generalist and specialists as one teacher."""
    return write_soft_targets(load_system(run, "combined"), network_store(run), run.out, run.settings.distill.store,
                              run.device, executor=run.executor)


@stage(reads=["features", "align", "specialist_targets"],
       settings=["data", "distill", "student", "specialists.enabled", "specialists.student"], resumable=True)
@optional("enabled", "student")
def specialist_student(run: StageRun) -> dict:
    """The small network on these targets."""
    return small_network(run, "specialist_student", lambda data: SoftTargets.open(
        run.input("specialist_targets"), run.settings.distill.loss, data.pdf_ids))


@stage(reads=[*EVALUATION, *MODELS, "specialist_student"],
       settings=["decode", "specialists.enabled", "specialists.generalist", "specialists.active_top",
                 "specialists.student"], resumable=True)
@optional("enabled")
def decode_specialists(run: StageRun) -> dict:
    """Generalist, control and generalist with specialists decoded under one tuned search; the student under its own."""
    return evaluate(run, systems(run))


@stage(reads=["corpus", *EVALUATION, *MODELS, "clusters", "coverage", "specialist_student", "decode_specialists"],
       settings=["data", "specialists", "distill", "student", "decode"])
@optional("enabled")
def specialist_report(run: StageRun) -> dict:
    """The tables of section 5: SPECIALISTS.json and SPECIALISTS.md."""
    evaluated = [Evaluated(run.input("decode_specialists") / name) for name in run.figures("decode_specialists")]
    stores, seconds = decoding_stores(run), run.stage_seconds()
    stages = {item.name: seconds[item.name] for item in STAGES if item.name in seconds}
    settings = run.settings.all()
    results = Results.of_now(
        run.recipe, device=str(run.device), seeds=[settings["specialists"]["seed"]], settings=settings, stages=stages,
        data={name: SplitData(**facts) for name, facts in split_figures(run).items()},
        systems=[system_of(item, stores) for item in evaluated],
        comparisons=comparisons_of(evaluated, COMPARED, stores))
    sets = ClusterResult.load(run.input("clusters") / CLUSTERS)
    sizes = [len(members) for members in sets.sets]
    phones = pdf_phones(HmmModel.load(run.input("align")))
    generalist, trained = generalist_name(run), list(run.figures("specialists").values())
    group = run.figures("teachers")[generalist]["group"]
    facts = {
        "results": results.to_dict(), "coverage": read_json(run.input("coverage") / COVERAGE),
        "sets": [{"senones": len(members), "mass": mass, "phones": _by_phone(members, phones),
                  "updates": figures["updates"], "accuracy": figures["accuracy"], "correction": figures["correction"]}
                 for members, mass, figures in zip(sets.sets, sets.figures["mass"], trained, strict=True)],
        "facts": {"specialists": len(sets.sets), "smallest": min(sizes), "largest": max(sizes),
                  "median": statistics.median(sizes), "left_out": sets.figures["left_out"], "num_pdfs": sets.num_pdfs,
                  "generalist": f"{generalist} ({group})",
                  "dustbin": run.settings.specialists.dustbin,
                  "control_updates": run.figures("control")["control"]["updates"]},
        "command": shlex.join(["python", *sys.argv])}
    write_json(run.out / SPECIALISTS, facts)
    write_text(run.out / "SPECIALISTS.md", page({run.recipe: facts}))
    run.publish(SPECIALISTS, "SPECIALISTS.md")
    return {"systems": len(evaluated)}


def generalist_name(run: StageRun) -> str:
    """Raises UserError where there is no such teacher."""
    name, trained = f"teacher{run.settings.specialists.generalist}", run.figures("teachers")
    if name not in trained:
        raise UserError(f"specialists.generalist: there is no {name}, only {len(trained)} teachers were trained")
    return name


def generalist_of(run: StageRun) -> AcousticModel:
    return AcousticModel.load(run.input("teachers") / generalist_name(run), run.device)


def trainer_of(run: StageRun) -> TrainerConfig:
    return settled(run.settings.specialists.trainer, run.device, run.out)


def alignment_of(run: StageRun) -> Path:
    """What the generalist was trained on."""
    again = run.input("teachers") / f"alignment_{run.figures('teachers')[generalist_name(run)]['group']}"
    return again if again.is_dir() else run.input("align") / training_split(run)


def load_system(run: StageRun, name: str) -> AcousticModel | Ensemble | GeneralistWithSpecialists:
    """One of SYSTEMS."""
    generalist = generalist_of(run)
    if name == "generalist":
        return generalist
    if name == "combined":
        return load_combined(generalist, run.input("specialists"), run.settings.specialists.active_top)
    other = AcousticModel.load(run.input("control") / "control", run.device)
    return other if name == "control" else Ensemble([generalist, other])


def systems(run: StageRun) -> Iterator[Candidate]:
    """The search is tuned for the generalist and serves all that are made of it: what differs is the model alone."""
    generalist, other = run.input("teachers") / generalist_name(run), run.input("control") / "control"
    parameters = run.figures("teachers")[generalist.name]["parameters"]
    own = [figures["parameters"] for figures in run.figures("specialists").values()]
    files = [run.input("specialists") / name for name in run.figures("specialists")]
    made: dict[str, tuple[Role, int, list[Path]]] = {
        "generalist": ("teacher", parameters, [generalist]),
        "control": ("teacher", parameters, [other]),
        "control_mean": ("ensemble", 2 * parameters, [generalist, other]),
        "combined": ("ensemble", parameters + sum(own), [generalist, *files])}
    for name, (role, count, folders) in made.items():
        yield Candidate(name, role, functools.partial(load_system, run, name), count, sum(map(model_bytes, folders)),
                        like="" if name == "generalist" else "generalist", decoded=run.settings.decode.words)
    for name, figures in run.figures("specialist_student").items():
        directory = run.input("specialist_student") / name
        yield Candidate(name, "student", functools.partial(AcousticModel.load, directory, run.device),
                        figures["parameters"], model_bytes(directory), decoded=run.settings.decode.words)


def _by_phone(members: Sequence[int], phones: Sequence[Sequence[str]], most: int = 8) -> str:
    """`S 12, Z 9, 3 others`: how many senones of each phone a set holds."""
    counts = Counter("/".join(phones[pdf]) for pdf in members).most_common()
    rest = sum(count for _, count in counts[most:])
    return ", ".join([f"{phone} {count}" for phone, count in counts[:most]] + ([f"{rest} others"] if rest else []))


STAGES = [clusters, specialists, control, coverage, specialist_targets, specialist_student, decode_specialists,
          specialist_report]
