"""One page of one or several finished experiments with specialists: docs/results/specialists is made by this.

    python local/specialists_page.py exp/mini_librispeech/study/specialists/points/* --out docs/results/specialists

A folder is an experiment or a study's point whose stage specialist_report is finished. Writes RESULTS.json ({name of
the folder: its SPECIALISTS.json}) and RESULTS.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asr_distill.command import guarded
from asr_distill.errors import UserError
from asr_distill.files import write_json, write_text
from asr_distill.report.specialists_page import SPECIALISTS, Facts, page, read_facts


def collect(folders: list[Path]) -> dict[str, Facts]:
    """Each folder's SPECIALISTS.json by the folder's name. Raises UserError where one has none, or two share a name."""
    found: dict[str, Facts] = {}
    for folder in folders:
        files = sorted(folder.glob(f"*_specialist_report/{SPECIALISTS}"))
        if not files:
            raise UserError(f"{folder}: its stage specialist_report is not finished: run the recipe with "
                            "--conf conf/specialists.yaml, or the study conf/study/specialists.yaml")
        label = folder.resolve().name
        if label in found:
            raise UserError(f"{folder}: a folder of this name was given already")
        found[label] = read_facts(files[-1])
    return found


def run(arguments: argparse.Namespace) -> int:
    points = collect(arguments.folders)
    if arguments.command:
        points = {label: {**facts, "command": arguments.command} for label, facts in points.items()}
    write_json(arguments.out / "RESULTS.json", points)
    text = page(points, shlex.join(["python", "local/specialists_page.py", *map(str, arguments.folders), "--out",
                                    str(arguments.out)]))
    write_text(arguments.out / "RESULTS.md", text)
    print(text)
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="experiments, or points of a study")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where RESULTS.json and RESULTS.md go")
    parser.add_argument("--command", default="", help="how the experiments were run, as the page should say it "
                        "(default: as they were, with this machine's paths)")
    return guarded(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
