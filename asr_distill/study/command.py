"""`asr-distill study conf/study/FILE.yaml ...`."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from asr_distill.config import load_settings
from asr_distill.device import device_of
from asr_distill.errors import UserError
from asr_distill.files import read_text
from asr_distill.lock import exclusive
from asr_distill.logs import log, to_terminal
from asr_distill.recipe_command import load_recipe
from asr_distill.study.collect import Collector
from asr_distill.study.config import StudyConfig
from asr_distill.study.grid import Study, read_study
from asr_distill.study.plan import PlannedPoint, make_plan
from asr_distill.study.plots import draw
from asr_distill.study.summary import PointResults, summarise
from asr_distill.study.tables import write_tables
from asr_distill.study.work import run_study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.yaml", help="study files, run one after another")
    parser.add_argument("--list", action="store_true", help="print every point and the stages it would run, and exit")
    parser.add_argument("--table", action="store_true", help="make tables and plots of what is finished; run nothing")
    parser.add_argument("--base", type=Path, metavar="DIR",
                        help="finished experiment that unchanged stages are taken from (default: the study file's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change a setting at every point, as for `run`: give what the base was run with")
    parser.add_argument("--conf", action="append", default=[], type=Path, metavar="FILE",
                        help="settings file that the base was run with (repeatable); the study's own win over it")
    parser.add_argument("--exp-dir", type=Path, default=None, metavar="DIR",
                        help="where studies go (default BASE/study, without a base exp/RECIPE/study)")
    parser.add_argument("--workers", type=int, default=1, metavar="N",
                        help="points made side by side (0: one a core; default 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")


def run(arguments: argparse.Namespace) -> int:
    """Run, list or tabulate the studies; raises UserError at the end where points failed."""
    if arguments.workers < 0:
        raise UserError(f"--workers {arguments.workers}: give 0 (one a core) or more")
    to_terminal()
    device = str(device_of(arguments.device))
    command = shlex.join(["asr-distill", "study", *sys.argv[2:]])
    failed: list[str] = []
    for file in arguments.files:
        config = load_settings(StudyConfig, [file])
        study = read_study(file, load_recipe(config.recipe), config, conf=arguments.conf,
                           overrides=arguments.overrides)
        base = arguments.base or config.base
        if base and not base.is_dir():
            raise UserError(f"{base}: no such experiment; run the recipe first, or give --base DIR")
        root = arguments.exp_dir or (base or Path("exp") / study.recipe.name) / "study"
        points = make_plan(study, base, root / "stages")
        if arguments.list:
            print(listing(study, points))
            continue
        failures: dict[str, str] = {}
        with contextlib.nullcontext() if arguments.table else exclusive(root):
            if not arguments.table:
                failures = run_study(study, points, root / study.name, device, arguments.workers)
            report(study, points, failures, root / study.name, device, command)
        for label, message in failures.items():
            log.error("%s, point %s failed: %s", study.name, label, message)
            failed.append(f"{study.name}, {label}")
    if failed:
        some = "; ".join(failed[:3]) + (" ..." if len(failed) > 3 else "")
        raise UserError(f"{len(failed)} points failed ({some}): see above; the same command tries them again, what is "
                        "finished is kept")
    return 0


def listing(study: Study, points: Sequence[PlannedPoint]) -> str:
    """Points and the stages that each would run; a stage that an earlier point runs is not named again."""
    lines, named = [f"{study.name}: {len(points)} points of {study.recipe.name}"], set()
    for number, planned in enumerate(points, 1):
        new = [node for node in planned.pending if node.directory not in named]
        named |= {node.directory for node in new}
        lines.append(f"{number:3d}  {planned.label}: {', '.join(node.stage.name for node in new) or 'nothing to run'}")
    taken = {node.stage.name: node.directory for planned in points for node in planned.nodes.values() if node.done}
    if taken:
        lines.append("     finished: " + ", ".join(taken))
    return "\n".join(lines)


def report(study: Study, points: Sequence[PlannedPoint], failures: dict[str, str], folder: Path, device: str,
           command: str) -> None:
    """Tables and plots of the points whose stages are all finished."""
    collector = Collector()
    results = [PointResults(planned.label, planned.point.axes, tuple(collector.measured(planned)))
               for planned in points if not planned.pending]
    rows = summarise(study.config, results)
    plots = [name for plot in study.config.plots for name in draw(plot, rows, folder)]
    write_tables(study, results, rows, failures, folder, plots=plots, device=device, command=command)
    print(read_text(folder / "study.md"))
