"""`asr-distill run RECIPE ...`."""

from __future__ import annotations

import argparse

from asr_distill import recipe_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a name of `asr-distill recipes`, or the path of a run.py")
    recipe_command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    return recipe_command.run(lambda: recipe_command.load_recipe(arguments.recipe), arguments,
                              ["-m", "asr_distill.cli", "run", *arguments.argv])
