"""The recipe runner: skip, rerun with a reason, resume after kill -9, one run at a time, movable folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from asr_distill.config import LATER, NO_RESULT, load_settings
from asr_distill.errors import UserError
from asr_distill.lock import exclusive
from asr_distill.recipe import Recipe, StageRun, stage
from asr_distill.stage_record import gather

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Data:
    dir: Path | None = None
    size: int = 3
    workers: int = field(default=0, metadata=NO_RESULT)


@dataclass(frozen=True)
class Train:
    epochs: int = 1


@dataclass(frozen=True)
class Settings:
    data: Data = Data()
    train: Train = Train()


@stage(settings=["data"])
def corpus(run: StageRun) -> dict:
    """Make numbers."""
    (run.out / "numbers.json").write_text(json.dumps(list(range(run.settings.data.size))))
    return {"count": run.settings.data.size}


@stage(settings=["train"], reads=["corpus"], resumable=True)
def teach(run: StageRun) -> dict:
    """Add them up."""
    (run.out / "attempts").open("a").write("x")
    numbers = json.loads((run.input("corpus") / "numbers.json").read_text())
    return {"sum": sum(numbers) * run.settings.train.epochs, "attempts": len((run.out / "attempts").read_text())}


@stage(reads=["teach"])
def report(run: StageRun) -> dict:
    """Say it."""
    return {"said": run.figures("teach")["sum"]}


def _recipe(*stages: object) -> Recipe:
    return Recipe("toy", Settings, Path("absent.yaml"), stages or [corpus, teach, report])  # type: ignore[arg-type]


def _settings(*overrides: str) -> Settings:
    return load_settings(Settings, [], list(overrides))


def _times(exp: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["started"] + str(path.stat().st_mtime_ns)
            for path in sorted(exp.glob("*/stage.json"))}


def test_second_run_does_nothing_and_a_change_reruns_only_what_depends_on_it(tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    _recipe().run(_settings(), exp, CPU)
    before = _times(exp)
    assert list(before) == ["01_corpus", "02_teach", "03_report"]
    _recipe().run(_settings("data.workers=2"), exp, CPU)  # changes no result
    assert _times(exp) == before
    _recipe().run(_settings("train.epochs=2"), exp, CPU)
    after = _times(exp)
    assert after["01_corpus"] == before["01_corpus"]
    assert after["02_teach"] != before["02_teach"] and after["03_report"] != before["03_report"]
    assert json.loads((exp / "03_report/stage.json").read_text())["figures"] == {"said": 6}
    assert "setting train.epochs changed (1 -> 2)" in (exp / "02_teach/log.txt").read_text()
    assert "stage teach changed" in (exp / "03_report/log.txt").read_text()


def test_paths_count_by_content_so_a_moved_corpus_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.flac").write_bytes(b"123")
    exp = tmp_path / "exp"
    _recipe().run(_settings(f"data.dir={tmp_path / 'a'}"), exp, CPU)
    before = _times(exp)
    (tmp_path / "a").rename(tmp_path / "b")
    exp.rename(tmp_path / "moved")
    _recipe().run(_settings(f"data.dir={tmp_path / 'b'}"), tmp_path / "moved", CPU)
    assert _times(tmp_path / "moved") == before
    (tmp_path / "b" / "link").symlink_to(tmp_path / "linked", target_is_directory=True)
    (tmp_path / "linked").mkdir()
    for name, text in (("x.flac", "1234"), ("a.trans.txt", "A B"), ("a.trans.txt", "A C"), ("link/y.flac", "1")):
        last = _times(tmp_path / "moved")
        (tmp_path / "b" / name).write_text(text)
        _recipe().run(_settings(f"data.dir={tmp_path / 'b'}"), tmp_path / "moved", CPU)
        assert _times(tmp_path / "moved")["01_corpus"] != last["01_corpus"], name
    (tmp_path / "b" / "x.flac").write_bytes(b"12345")
    _recipe().run(_settings(f"data.dir={tmp_path / 'b'}"), tmp_path / "moved", CPU)
    assert _times(tmp_path / "moved")["01_corpus"] != before["01_corpus"]


def test_missing_path_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such file or folder .*--set data\.dir=PATH"):
        _recipe().run(_settings(f"data.dir={tmp_path / 'nowhere'}"), tmp_path / "exp", CPU)


def test_a_stage_range_and_its_missing_needs(tmp_path: Path) -> None:
    recipe = _recipe()
    with pytest.raises(UserError, match=r"stage 1 \(corpus\) is needed first: not done yet"):
        recipe.run(_settings(), tmp_path, CPU, first=2)
    recipe.run(_settings(), tmp_path, CPU, last=1)
    assert list(_times(tmp_path)) == ["01_corpus"]
    recipe.run(_settings(), tmp_path, CPU, first=2, last=2)
    first = _times(tmp_path)
    recipe.run(_settings(), tmp_path, CPU, first=2, last=2, force=True)
    assert _times(tmp_path)["02_teach"] != first["02_teach"]
    assert recipe.number("teach") == 2 and recipe.number("3") == 3
    with pytest.raises(UserError, match=r"no stage 'teech'.*did you mean 'teach'"):
        recipe.number("teech")


def test_what_a_stage_lacks_is_told_before_any_stage_runs(tmp_path: Path) -> None:
    def lack(settings: Settings, device: torch.device) -> None:
        if settings.train.epochs > 1:
            raise UserError(f"{device}: no tool for {settings.train.epochs} epochs")

    needy = replace(teach, needs=lack)
    for exp, more in ((tmp_path / "new", {}), (tmp_path / "part", {"last": 1})):
        with pytest.raises(UserError, match="cpu: no tool for 2 epochs"):
            _recipe(corpus, needy, report).run(_settings("train.epochs=2"), exp, CPU)
        assert _times(exp) == {}
        _recipe(corpus, needy, report).run(_settings(), exp, CPU, **more)  # it lacks nothing, or is not asked for
    _recipe(corpus, teach, report).run(_settings("train.epochs=2"), tmp_path / "new", CPU)
    before = _times(tmp_path / "new")
    _recipe(corpus, needy, report).run(_settings("train.epochs=2"), tmp_path / "new", CPU)  # done elsewhere
    assert _times(tmp_path / "new") == before
    with pytest.raises(UserError, match="no tool for 2 epochs"):  # it has to follow what it reads
        _recipe(corpus, needy, report).run(_settings("train.epochs=2"), tmp_path / "new", CPU, force=True)
    assert _times(tmp_path / "new") == before


def test_a_forced_stage_makes_later_ones_follow(tmp_path: Path) -> None:
    recipe = _recipe()
    recipe.run(_settings(), tmp_path, CPU)
    before = _times(tmp_path)
    recipe.run(_settings(), tmp_path, CPU, first=2, last=2, force=True)
    recipe.run(_settings(), tmp_path, CPU)
    after = _times(tmp_path)
    assert after["01_corpus"] == before["01_corpus"] and after["03_report"] != before["03_report"]
    recipe.run(_settings(), tmp_path, CPU)
    assert _times(tmp_path) == after


def test_a_failed_stage_leaves_no_directory_and_goes_on_where_it_was(tmp_path: Path) -> None:
    @stage(reads=["corpus"], settings=["train"], resumable=True, name="teach")
    def fails(run: StageRun) -> dict:
        """Fail."""
        (run.out / "attempts").open("a").write("x")
        raise UserError("x.flac: truncated")

    with pytest.raises(UserError, match="truncated"):
        _recipe(corpus, fails).run(_settings(), tmp_path, CPU)
    assert not (tmp_path / "02_teach").exists()
    assert "stopped by UserError: x.flac: truncated" in (tmp_path / "02_teach.partial" / "log.txt").read_text()
    _recipe().run(_settings(), tmp_path, CPU)
    assert json.loads((tmp_path / "02_teach/stage.json").read_text())["figures"]["attempts"] == 2
    # with other settings the leftovers are of no use
    with pytest.raises(UserError):
        _recipe(corpus, fails).run(_settings("train.epochs=2"), tmp_path, CPU)
    _recipe().run(_settings("train.epochs=3"), tmp_path, CPU)
    assert json.loads((tmp_path / "02_teach/stage.json").read_text())["figures"]["attempts"] == 1


def test_killed_between_work_and_rename(tmp_path: Path) -> None:
    _recipe().run(_settings(), tmp_path, CPU)
    before = _times(tmp_path)
    (tmp_path / "02_teach").rename(tmp_path / "02_teach.partial")
    _recipe().run(_settings(), tmp_path, CPU)
    assert _times(tmp_path) == before


def test_undeclared_settings_and_inputs_cannot_be_reached(tmp_path: Path) -> None:
    @stage(settings=["train"])
    def sly(run: StageRun) -> dict:
        """Peek."""
        return {"x": run.settings.data.size}

    with pytest.raises(AttributeError, match="does not declare that it uses the settings 'data'"):
        _recipe(sly).run(_settings(), tmp_path, CPU)

    @stage()
    def greedy(run: StageRun) -> dict:
        """Grab."""
        return {"x": run.input("corpus")}

    with pytest.raises(KeyError, match="does not declare that it reads 'corpus'"):
        _recipe(corpus, greedy).run(_settings(), tmp_path, CPU)
    with pytest.raises(ValueError, match="does not come before"):
        _recipe(teach, corpus)


def test_two_runs_on_one_folder_cannot_clash(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(UserError, match=f"another run .process {os.getpid()}. is at work"):
        _recipe().run(_settings(), tmp_path, CPU)
    _recipe().run(_settings(), tmp_path, CPU)


SCRIPT = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from dataclasses import dataclass
    from pathlib import Path
    from asr_distill.recipe import Recipe, stage
    from asr_distill.recipe_command import main

    @dataclass(frozen=True)
    class Settings:
        pass

    @stage(resumable=True)
    def slow(run):
        '''Ten steps.'''
        for step in range(10):
            path = run.out / f"step{{step}}"
            if not path.exists():
                path.touch()
                (run.out / "made").open("a").write(str(step))
                time.sleep(0.15)
        return {{"made": (run.out / "made").read_text()}}

    recipe = Recipe("slow", Settings, Path({conf!r}), [slow])
    sys.exit(main(recipe))
"""


def test_kill_9_then_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("")
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT.format(tests=str(Path(__file__).parents[1]),
                                                    conf=str(tmp_path / "conf.yaml"))))
    command = [sys.executable, str(script), "--exp-dir", str(tmp_path / "exp"), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not (tmp_path / "exp/01_slow.partial/step2").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "exp/01_slow").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on where it was interrupted" in done.stderr
    assert json.loads((tmp_path / "exp/01_slow/stage.json").read_text())["figures"] == {"made": "0123456789"}
    seconds = json.loads((tmp_path / "exp/01_slow/stage.json").read_text())["seconds"]
    assert seconds > 10 * 0.15 * 0.8  # both attempts count
    listing = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True)
    assert listing.stdout == "  1  slow  Ten steps.\n"
    wrong = subprocess.run([*command, "--set", "x=1"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1 and "unknown setting 'x'" in wrong.stderr


@dataclass(frozen=True)
class OldGroup:
    seeds: tuple[int, ...] = (1, 2)
    workers: int = field(default=0, metadata=NO_RESULT)


@dataclass(frozen=True)
class NewGroup(OldGroup):
    smoothing: float = field(default=0.0, metadata=LATER)


@dataclass(frozen=True)
class Old:
    groups: dict[str, OldGroup] = field(default_factory=lambda: {"wide": OldGroup()})


@dataclass(frozen=True)
class New:
    groups: dict[str, NewGroup] = field(default_factory=lambda: {"wide": NewGroup()})


def test_a_field_that_came_later_leaves_older_records_valid_until_it_is_used() -> None:
    @dataclass(frozen=True)
    class Sections:
        teachers: object

    def digest(teachers: object) -> str:
        return gather(Sections(teachers), ("teachers",), {}, 1).digest

    assert digest(Old()) == digest(New()) == digest(New({"wide": NewGroup(workers=3)}))
    assert digest(New({"wide": NewGroup(smoothing=0.1)})) != digest(Old())
    assert digest(New({"narrow": NewGroup()})) != digest(Old())


def test_what_a_stage_no_longer_declares_or_there_is_no_longer_changes_nothing(tmp_path: Path) -> None:
    """An older record holds more than today's stage asks for; a name that left a mapping is a change all the same."""
    @dataclass(frozen=True)
    class Group:
        size: int = 1
        old: int = 2

    @dataclass(frozen=True)
    class Section:
        names: dict[str, object] = field(default_factory=lambda: {"a": Group(), "b": Group()})
        steps: int = 3
        used: int = 4
        workers: int = field(default=0, metadata=NO_RESULT)

    @dataclass(frozen=True)
    class Slim:
        size: int = 1

    @dataclass(frozen=True)
    class All:
        section: object = Section()

    old = gather(All(), ("section",), {}, 1).record()
    assert gather(All(), ("section",), {}, 1).changes_since(old) == {}
    old["settings"]["section.workers"] = 7  # from when it was recorded
    narrow = gather(All(), ("section.used", "section.names"), {}, 1)
    assert narrow.changes_since(old | {"settings": old["settings"] | {"section.steps": 9}}) == {}
    assert set(narrow.changes_since(old | {"settings": old["settings"] | {"section.used": 9}})) == {"section.used"}
    # `old` is no setting of a group any more; group b is gone
    slim = gather(All(Section(names={"a": Slim(), "b": Slim()})), ("section",), {}, 1)
    assert slim.changes_since(old) == {}
    fewer = gather(All(Section(names={"a": Slim()})), ("section",), {}, 1)
    assert set(fewer.changes_since(old)) == {"section.names.b.size", "section.names.b.old"}
    # groups as one value, as records once held them
    nested = {key: value for key, value in old["settings"].items() if not key.startswith("section.names")}
    nested["section.names"] = {"a": {"size": 1, "old": 2}, "b": {"size": 1, "old": 2}}
    assert slim.changes_since(old | {"settings": nested}) == {}


def test_only_the_declared_part_of_a_section_can_be_read(tmp_path: Path) -> None:
    @stage(settings=["data.size"])
    def part(run: StageRun) -> dict:
        """Read a part."""
        assert run.settings.data.size == 3
        return {"workers": run.settings.data.workers}

    with pytest.raises(AttributeError, match=r"part does not declare that it uses the settings 'data\.workers'"):
        _recipe(part).run(_settings(), tmp_path, CPU)


def test_a_linked_stage_is_done_and_stays_as_it_is(tmp_path: Path) -> None:
    """Nothing is written or deleted through the link, whatever changes."""
    elsewhere, exp = tmp_path / "elsewhere", tmp_path / "exp"
    _recipe().run(_settings(), elsewhere, CPU)
    exp.mkdir()
    for name in ("01_corpus", "02_teach"):
        (exp / name).symlink_to(Path("../elsewhere") / name, target_is_directory=True)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in elsewhere.rglob("*") if path.is_file()}
    _recipe().run(_settings(), exp, CPU)
    assert (exp / "02_teach").is_symlink() and (exp / "03_report").is_dir() and not (exp / "03_report").is_symlink()
    _recipe().run(_settings("train.epochs=2"), exp, CPU)
    _recipe().run(_settings("train.epochs=2"), exp, CPU, first=1, last=1, force=True)
    assert not (exp / "02_teach").is_symlink() and not (exp / "01_corpus").is_symlink()
    assert sorted(path.name for path in exp.iterdir()) == [".lock", "01_corpus", "02_teach", "03_report"]
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in elsewhere.rglob("*")
            if path.is_file()} == before
