"""`asr-distill plan RECIPE --hours H`: time, memory and disk of every stage, from measured runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_distill.errors import UserError

if TYPE_CHECKING:
    from asr_distill.plan.measured import Run
    from asr_distill.plan.model import Predicted
    from asr_distill.recipe import Recipe

MEASURED = Path(__file__).resolve().parents[2] / "conf" / "measured"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", default="librispeech", help="whose stages (default librispeech)")
    parser.add_argument("--hours", type=float, metavar="H", help="hours of training speech")
    parser.add_argument("--decoded-hours", type=float, metavar="H",
                        help="of all reported splits (default: as measured)")
    parser.add_argument("--cores", type=int, metavar="N",
                        help="of the machine that is planned for (default: as measured)")
    parser.add_argument("--gpus", type=int, default=0, metavar="N",
                        help="cards that train networks (default 0: cores do)")
    parser.add_argument("--gpu-rates", type=Path, default=MEASURED / "h100.json", metavar="FILE",
                        help="what one card does (default: the H100 of conf/measured)")
    parser.add_argument("--measured", type=Path, default=MEASURED / "two_cores.json", metavar="FILE",
                        help="measured runs, as --save writes them (default: those of conf/measured)")
    parser.add_argument("--from", type=Path, nargs="+", default=[], metavar="EXP", dest="experiments",
                        help="measured runs: experiments' folders, in place of --measured")
    parser.add_argument("--check", action="store_true",
                        help="fit on all runs but the largest, predict that one, and print the errors")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the measured runs in a file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="a setting of what is planned (repeatable)")
    parser.add_argument("--conf", action="append", default=[], type=Path, metavar="FILE",
                        help="settings file of what is planned, read after the recipe's own (repeatable)")


def run(arguments: argparse.Namespace) -> int:
    """Print a plan, or the check of the model."""
    from asr_distill.plan.measured import load_runs, read_experiment, save_runs, work_function
    from asr_distill.recipe_command import load_recipe

    recipe = load_recipe(arguments.recipe)
    work_function(recipe)
    runs = ([read_experiment(recipe, exp) for exp in arguments.experiments] if arguments.experiments
            else load_runs(arguments.measured))
    if not runs:
        raise UserError(f"{arguments.measured}: holds no run")
    runs.sort(key=lambda item: item.train_hours)
    if arguments.save:
        save_runs(arguments.save, runs)
    if arguments.check:
        _check(runs)
    if arguments.hours is not None:
        _plan(recipe, runs, arguments)
    elif not arguments.check and not arguments.save:
        raise UserError("say what is planned: --hours H (or --check)")
    return 0


def _check(runs: list[Run]) -> None:
    from asr_distill.plan.model import Machine, predict
    from asr_distill.plan.table import check_table
    from asr_distill.plan.work import Work

    *smaller, largest = runs
    if not smaller:
        raise UserError("--check needs at least two measured runs, of which the largest is predicted from the others")
    work = {name: Work(cost.amount) for name, cost in largest.stages.items()}
    cpus = max(cost.cpus for cost in largest.stages.values())
    print(f"{largest.train_hours:.2f} h of training speech, predicted from {_said(smaller)}, on {largest.machine}:")
    print(check_table(predict(smaller, work, largest.train_hours, Machine(cpus)), largest))


def _plan(recipe: Recipe, runs: list[Run], arguments: argparse.Namespace) -> None:
    from asr_distill.config import load_settings
    from asr_distill.plan.gpu import load_gpu
    from asr_distill.plan.measured import work_function
    from asr_distill.plan.model import EFFICIENCY, Machine, predict
    from asr_distill.plan.table import plan_table

    for name in ("hours", "decoded_hours", "cores"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: must be above 0")
    if arguments.gpus < 0:
        raise UserError(f"--gpus {arguments.gpus}: must be at least 0")
    settings: Any = load_settings(recipe.settings_class, [recipe.conf, *arguments.conf], arguments.overrides)
    measured = max(cost.cpus for run in runs for cost in run.stages.values())
    gpu = load_gpu(arguments.gpu_rates) if arguments.gpus else None
    machine = Machine(arguments.cores or measured, arguments.gpus, gpu)
    data = planned_data(settings, runs, arguments.hours, arguments.decoded_hours)
    stages = predict(runs, work_function(recipe)(settings, data), arguments.hours, machine)
    on = f"{machine.cores} cores" + (f" and {machine.gpus} x {gpu.name}" if gpu else "")
    print(f"{recipe.name}: {arguments.hours:g} h of training speech, {data.pdfs:,} pdfs, on {on}; "
          f"from {_said(runs)} on {runs[-1].machine}")
    print(plan_table(stages))
    for note in _notes(stages, machine, measured, gpu, EFFICIENCY, len(runs)):
        print(f"* {note}")


def planned_data(settings: Any, runs: list[Run], hours: float, decoded: float | None) -> Any:
    """Splits of the largest run with so many hours to train on and to report. Of the leaves that the tree may have,
    the share that become pdfs follows the runs' growth with the data."""
    from asr_distill.plan.measured import TRAIN, TUNE
    from asr_distill.plan.model import power_law
    from asr_distill.plan.work import Data

    largest = runs[-1]
    ratio = dict.fromkeys(largest.hours, 1.0) | {TRAIN: hours / largest.train_hours}
    reported = [split for split in largest.hours if split not in (TRAIN, TUNE)]
    if decoded is not None:
        there = sum(largest.hours[split] for split in reported)
        ratio |= dict.fromkeys(reported, decoded / there)
    share = power_law([run.train_hours for run in runs], [run.pdfs / run.leaves for run in runs], hours, most=1.0)
    pdfs = share * settings.tri3b.tree.leaves
    return Data({split: largest.hours[split] * ratio[split] for split in ratio},
                {split: max(1, round(largest.utterances[split] * ratio[split])) for split in ratio}, round(pdfs))


def _said(runs: list[Run]) -> str:
    return "runs of " + ", ".join(f"{run.train_hours:.2f}" for run in runs) + " h"


def _notes(stages: list[Predicted], machine: Any, measured: int, gpu: Any, efficiency: float,
           runs: int) -> list[str]:
    notes = []
    if runs == 1:
        notes.append("one run alone tells neither fixed parts nor how memory grows: times are proportional, memory as "
                     "there")
    if machine.cores > measured:
        notes.append(f"cores beyond the {measured} measured count {efficiency:g} each: an assumption")
    if gpu:
        notes.append(f"cards (--executor processes --workers {machine.gpus}): one training a card, the longest first, "
                     f"soft targets on all, at the rates of {gpu.source}; features, GMMs and decoding on the cores")
    notes.append("graph, language models and anything else that text decides: as in the measured runs")
    if any(item.stage == "soft_targets" for item in stages):
        notes.append("disk of soft_targets: in the form that the measured runs stored")
    return notes
