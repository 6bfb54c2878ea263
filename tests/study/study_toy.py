"""A recipe of cheap stages for the tests of studies: teachers, soft targets, baseline, student, scores."""

from __future__ import annotations

import textwrap
from pathlib import Path

RECIPE = '''
"""toy: adds numbers."""
import json, os, sys, time
from dataclasses import dataclass, field
from pathlib import Path
from asr_distill.errors import UserError
from asr_distill.recipe import Recipe, stage
from asr_distill.recipe_command import main

HERE = Path(__file__).parent

@dataclass(frozen=True)
class Teachers:
    count: int = 3

@dataclass(frozen=True)
class Soft:
    temperature: float = 2.0

@dataclass(frozen=True)
class Loss:
    weight: float = 0.5

@dataclass(frozen=True)
class Distill:
    store: Soft = Soft()
    loss: Loss = Loss()

@dataclass(frozen=True)
class Student:
    seed: int = 1
    width: int = 8
    pause: float = 0.0

@dataclass(frozen=True)
class Settings:
    teachers: Teachers = Teachers()
    distill: Distill = Distill()
    student: Student = Student()

def made(run):
    """Note that a stage was worked on."""
    with open(HERE / "made.txt", "a") as file:
        file.write(f"{run.stage.name} {os.getpid()}\\n")

def system(run, name, role, accuracy, width=8):
    folder = run.out / name
    folder.mkdir(exist_ok=True)
    (folder / "system.json").write_text(json.dumps(
        {"name": name, "role": role, "parameters": 100 * width, "bytes": 1, "targets": 2, "decoded": False,
         "splits": {"test": {"frame_accuracy": accuracy, "cross_entropy": 1.0}}}))

@stage(settings=["teachers"])
def teach(run):
    """Teachers."""
    made(run)
    return {"accuracy": 60.0 + run.settings.teachers.count}

@stage(reads=["teach"], settings=["distill.store"])
def soft(run):
    """Soft targets."""
    made(run)
    temperature = run.settings.distill.store.temperature
    return {"accuracy": run.figures("teach")["accuracy"] - abs(temperature - 2)}

@stage(settings=["student"])
def base(run):
    """The baseline."""
    made(run)
    return {"accuracy": 50.0 + run.settings.student.seed + run.settings.student.width / 8}

@stage(reads=["soft"], settings=["distill", "student"], resumable=True)
def learn(run):
    """The student."""
    made(run)
    if run.settings.student.width == 13:
        raise UserError("13 brings bad luck: use another width")
    if run.settings.student.width == 14:
        raise ZeroDivisionError("oh")
    for step in range(5):
        path = run.out / f"step{step}"
        if not path.exists():
            time.sleep(run.settings.student.pause)
            path.touch()
            (run.out / "steps.txt").open("a").write(str(step))
    return {"accuracy": run.figures("soft")["accuracy"] - 1 + 0.1 * run.settings.student.seed,
            "steps": (run.out / "steps.txt").read_text()}

@stage(reads=["teach"])
def score_teachers(run):
    """Score the ensemble."""
    made(run)
    system(run, "ensemble", "ensemble", run.figures("teach")["accuracy"], 80)

@stage(reads=["base"], settings=["student"])
def score_base(run):
    """Score the baseline."""
    made(run)
    system(run, "baseline", "baseline", run.figures("base")["accuracy"], run.settings.student.width)

@stage(reads=["learn"], settings=["student"])
def score(run):
    """Score the student."""
    made(run)
    system(run, "student", "student", run.figures("learn")["accuracy"], run.settings.student.width)

recipe = Recipe("toy", Settings, HERE / "conf.yaml", [teach, soft, base, learn, score_teachers, score_base, score])
if __name__ == "__main__":
    sys.exit(main(recipe))
'''


def write_recipe(folder: Path) -> Path:
    """folder/run.py and its settings file."""
    (folder / "conf.yaml").write_text("")
    script = folder / "run.py"
    script.write_text(textwrap.dedent(RECIPE))
    return script


def write_study(folder: Path, text: str, *, name: str = "some", base: Path | None = None) -> Path:
    file = folder / f"{name}.yaml"
    head = f"recipe: {folder / 'run.py'}\n" + (f"base: {base}\n" if base else "")
    file.write_text(head + textwrap.dedent(text))
    return file


def made(folder: Path) -> list[str]:
    """Names of the stages that were worked on, in order; forgotten then."""
    path = folder / "made.txt"
    names = [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Times and bytes of all files below."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(folder.rglob("*")) if path.is_file() and "study" not in path.relative_to(folder).parts}
