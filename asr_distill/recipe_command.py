"""The command line of a recipe: `python recipes/NAME/run.py ...` and `asr-distill run NAME ...` are the same."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from asr_distill.command import guarded
from asr_distill.config import load_settings
from asr_distill.device import device_of
from asr_distill.errors import UserError, nearest
from asr_distill.executor import ExecutorSettings, open_executor
from asr_distill.logs import to_terminal
from asr_distill.parallel.crew import Crew, check_devices, joined
from asr_distill.parallel.launch import launch
from asr_distill.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="list the stages and exit")
    parser.add_argument("--stage", default="1", metavar="N", help="first stage to run (number or name)")
    parser.add_argument("--stop-stage", default=None, metavar="N", help="last stage to run (number or name)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change a setting, for example student.network.width=512 (repeatable)")
    parser.add_argument("--conf", action="append", default=[], type=Path, metavar="FILE",
                        help="settings file read after the recipe's own (repeatable)")
    parser.add_argument("--exp-dir", type=Path, default=None, metavar="DIR",
                        help="where results go (default exp/RECIPE)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--processes", type=int, default=0, metavar="N",
                        help="train with N processes, on GPUs one a GPU (also: torchrun -m asr_distill.cli run ...)")
    parser.add_argument("--force", action="store_true", help="run the chosen stages even if nothing changed")
    parser.add_argument("--executor", choices=["serial", "processes", "dask"], default=None,
                        help="what features, alignment, teachers, specialists, soft targets and decoding are computed "
                             "by (default: this process)")
    parser.add_argument("--workers", type=int, default=None, metavar="N",
                        help="processes of the executor (default: one a core, or those that the scheduler has)")
    parser.add_argument("--scheduler", default=None, metavar="ADDRESS",
                        help="of Dask: tcp://HOST:PORT, or its scheduler file (default: workers of this machine)")


def run(find: Callable[[], Recipe], arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Run a recipe's stages as the arguments say; `command`: what follows `python` to do the same.

    One of several processes (parallel.crew) does that, the others join it for its trainings.
    """
    with joined() as crew:
        return crew.serve() if crew.rank else _run(find(), arguments, command, crew)


def _run(recipe: Recipe, arguments: argparse.Namespace, command: Sequence[str], crew: Crew) -> int:
    if arguments.list:
        print(recipe.listing())
        return 0
    to_terminal()
    settings: Any = load_settings(recipe.settings_class, [recipe.conf, *arguments.conf], arguments.overrides)
    first = recipe.number(arguments.stage)
    last = recipe.number(arguments.stop_stage) if arguments.stop_stage else len(recipe.stages)
    if first > last:
        raise UserError(f"--stage {arguments.stage} comes after --stop-stage {arguments.stop_stage}")
    if arguments.processes < 0 or (crew.size > 1 and arguments.processes not in (0, crew.size)):
        raise UserError(f"--processes {arguments.processes}: give 1 or more" if crew.size == 1 else
                        f"--processes {arguments.processes}: {crew.size} processes were started already: leave it out")
    device = device_of(arguments.device)
    if arguments.processes > 1 and crew.size == 1:
        check_devices(device, arguments.processes)
        return launch(command, arguments.processes)
    exp = arguments.exp_dir or Path("exp") / recipe.name
    chosen = _executor_settings(settings, arguments)
    if chosen.kind in ("processes", "dask") and device.index:
        raise UserError(f"--device {device}: workers of --executor {chosen.kind} see one GPU each and call it cuda:0: "
                        "use --device cuda, and CUDA_VISIBLE_DEVICES for which they may take")
    with open_executor(chosen) or nullcontext() as executor:
        recipe.run(settings, exp, crew.device(device), first=first, last=last, force=arguments.force,
                   executor=executor)
    table = exp / "RESULTS.txt"
    if last == len(recipe.stages) and table.is_file():
        print(table.read_text(encoding="utf-8"))
    return 0


def _executor_settings(settings: Any, arguments: argparse.Namespace) -> ExecutorSettings:
    """The recipe's, where it has any, with what the command line says."""
    said = {"kind": arguments.executor, "workers": arguments.workers, "scheduler": arguments.scheduler}
    plain = getattr(settings, "executor", ExecutorSettings())
    if arguments.executor not in (None, "dask"):
        plain = dataclasses.replace(plain, scheduler="")  # a settings file's
    try:
        chosen = dataclasses.replace(plain, **{name: value for name, value in said.items() if value is not None})
    except ValueError as error:
        raise UserError(f"--executor, --workers, --scheduler: {error}") from None
    if chosen.kind == "none" and chosen.workers:
        raise UserError("--workers: of which executor? Give --executor processes or --executor dask too")
    return chosen


def main(recipe: Recipe, argv: list[str] | None = None) -> int:
    """Entry point of a recipe's run.py; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"recipes/{recipe.name}/run.py",
                                     description=(sys.modules["__main__"].__doc__ or "").strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    argv = list(sys.argv[1:] if argv is None else argv)
    script = str(Path(sys.argv[0]).absolute())
    return guarded(lambda parsed: run(lambda: recipe, parsed, [script, *argv]), parser.parse_args(argv))


def find_recipes() -> dict[str, Path]:
    """Recipe name -> run.py, from ./recipes and from the checkout that this package is installed from."""
    found: dict[str, Path] = {}
    for folder in (ROOT / "recipes", Path.cwd() / "recipes"):
        for script in sorted(folder.glob("*/run.py")):
            found[script.parent.name] = script
    return found


def load_recipe(name: str) -> Recipe:
    """The Recipe of recipes/NAME/run.py (or of a given run.py). Raises UserError where there is none."""
    known = find_recipes()
    script = Path(name) if name.endswith(".py") else known.get(name)
    if script is None or not script.is_file():
        raise UserError(f"no recipe '{name}'{nearest(name, known)}; known: {', '.join(known) or 'none'} "
                        "(recipes live in the folder recipes/ of a checkout; run from there)")
    spec = importlib.util.spec_from_file_location(f"asr_distill_recipe_{script.parent.name}", script)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
        recipe = module.recipe
    except (SyntaxError, AttributeError) as error:
        raise UserError(f"{script}: not a recipe ({error}); it must define `recipe = Recipe(...)`") from None
    if not isinstance(recipe, Recipe):
        raise UserError(f"{script}: its `recipe` is no asr_distill Recipe")
    return recipe
