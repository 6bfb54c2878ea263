"""`asr-distill recipes`."""

from __future__ import annotations

import argparse

from asr_distill.errors import UserError
from asr_distill.recipe_command import find_recipes, load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="list this recipe's stages")


def run(arguments: argparse.Namespace) -> int:
    if arguments.recipe:
        print(load_recipe(arguments.recipe).listing())
        return 0
    found = find_recipes()
    if not found:
        raise UserError("no folder recipes/ here; run from a checkout of asr_distill")
    for name, script in found.items():
        first_line = script.read_text(encoding="utf-8").split('"""')[1].strip().splitlines()[0]
        print(f"{name:18}{first_line}")
    return 0
