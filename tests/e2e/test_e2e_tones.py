"""The whole chain, by pip alone, on a made language of tones: it learns, resumes after kill -9, and fails clearly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from runner import ROOT, TINY, kill_when, measured, results, run, tone_settings

pytestmark = pytest.mark.slow


def test_it_learns_and_every_system_is_there(finished: Path) -> None:
    found = results(finished)
    systems = {system["name"]: system for system in found["systems"]}
    assert [(name, systems[name]["role"]) for name in systems] == [
        ("mono", "gmm"), ("tri1", "gmm"), ("tri2b", "gmm"), ("tri3b", "gmm"), ("baseline", "baseline"),
        ("teacher1", "teacher"), ("teacher2", "teacher"), ("teacher3", "teacher"), ("ensemble", "ensemble"),
        ("student", "student"), ("exported", "export")]
    assert found["data"]["dev_clean_2"]["perplexity"] > 1
    assert list(found["stages"])[3:7] == ["mono", "tri1", "tri2b", "tri3b"]
    scores = {name: system["splits"]["dev_clean_2"] for name, system in systems.items()}
    assert scores["ensemble"]["wer"] < 15 and scores["student"]["wer"] < 20  # a model that learned nothing: above 80
    assert scores["ensemble"]["frame_accuracy"] > scores["baseline"]["frame_accuracy"]
    assert abs(scores["exported"]["wer"] - scores["student"]["wer"]) <= 0.2
    assert systems["student"]["parameters"] < systems["teacher1"]["parameters"]
    assert {(item["a"], item["b"]) for item in found["comparisons"]} >= {("student", "baseline")}
    for name in ("RESULTS.md", "RESULTS.txt", "training.png", "wer.png"):
        assert (finished / name).stat().st_size > 500
    assert "student" in (finished / "RESULTS.md").read_text()


def test_a_second_run_does_nothing(finished: Path, tones: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    again = run(finished, *tone_settings(tones))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"} == before
    assert again.stderr.count("done before, nothing changed") == len(list(finished.glob("[0-9][0-9]_*"))) > 24


@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_another_executor_has_the_same_results(kind: str, finished: Path, tones: Path, tmp_path: Path) -> None:
    """To the last bit: every job, trainings too, is done on one thread."""
    if kind == "dask":
        pytest.importorskip("distributed")
    log = run(tmp_path / "exp", *tone_settings(tones), "--executor", kind, "--workers", "2").stderr
    assert "teachers: 3/3 teachers" in log
    assert measured(tmp_path / "exp") == measured(finished)


def test_a_changed_student_reruns_only_what_depends_on_it(finished: Path, tones: Path, tmp_path: Path) -> None:
    exp = tmp_path / "moved"
    shutil.copytree(finished, exp)  # an experiment folder can be moved
    log = run(exp, *tone_settings(tones), "--set", "student.seed=7", "--stop-stage", "student").stderr
    assert log.count("done before, nothing changed") == 17
    assert "setting student.seed changed (101 -> 7)" in log


def test_the_student_learns_online_and_from_compact_targets(finished: Path, tones: Path, tmp_path: Path) -> None:
    """One teacher hears adapted frames, two log-mel; all students see the same batches."""
    accuracy = {}
    for name, change in (("top 10", "distill.store.top_k=10"), ("compact", "distill.store.form=compact"),
                         ("online", "distill.online=true")):
        exp = tmp_path / name.replace(" ", "_")
        shutil.copytree(finished, exp)
        run(exp, *tone_settings(tones), "--set", change, "--set", "student.trainer.chunk=15", "--stop-stage", "student")
        (student,) = exp.glob("[0-9][0-9]_student")
        accuracy[name] = json.loads((student / "stage.json").read_text())["figures"]["student"]["accuracy"]
        (kept,) = exp.glob("[0-9][0-9]_soft_targets")
        assert (kept / "ensemble.json").is_file() == (name == "online")
    assert abs(accuracy["online"] - accuracy["compact"]) < 0.01
    assert min(accuracy.values()) > max(accuracy.values()) - 0.05


def test_a_transfer_set_of_noisy_views_and_untranscribed_audio(finished: Path, tones: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    shutil.copytree(finished, exp)
    more = [*tone_settings(tones), "--set", "transfer.views=1", "--set", "transfer.noisy_test=true", "--set",
            f"transfer.untranscribed={tones / 'LibriSpeech/dev-clean-2'}"]
    message = _fails(exp, *more)
    assert "speaker-adapted" in message and "--set distill.store.chosen=[2, 3]" in message
    shutil.rmtree(exp / "16_transfer")
    more += ["--set", "distill.store.chosen=[2, 3]", "--stop-stage", "report"]
    kill_when(exp, lambda: (exp / "16_transfer.partial/view1/untranscribed").exists(), more)
    log = run(exp, *more).stderr
    assert "stage 16 transfer" in log and "going on where it was interrupted" in log
    systems = {system["name"]: system["splits"] for system in results(exp)["systems"]}
    assert set(systems["student"]) == set(systems["baseline"]) == {"dev_clean_2", "dev_clean_2_noisy"}
    assert set(systems["ensemble"]) == {"dev_clean_2"}
    assert systems["student"]["dev_clean_2_noisy"]["frame_accuracy"] > 80
    assert "dev_clean_2_noisy" in (exp / "RESULTS.md").read_text()


def test_the_exported_student_transcribes(finished: Path, tones: Path) -> None:
    audio = sorted((tones / "LibriSpeech/dev-clean-2").rglob("*.flac"))[-1]
    said = audio.with_name(f"{audio.parent.parent.name}-1.trans.txt").read_text().splitlines()[-1].split()[1:]
    bundle = next(finished.glob("*_export/recogniser"))
    done = subprocess.run([sys.executable, "-m", "asr_distill.cli", "transcribe", str(bundle), str(audio)],
                          capture_output=True, text=True, check=True, cwd=ROOT)
    heard = done.stdout.upper()
    assert sum(word in heard for word in said) >= len(said) - 2


def test_the_page_shows_the_systems_and_lets_people_hear(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = subprocess.run([sys.executable, "-m", "asr_distill.cli", "report", str(finished), "--out", str(page)],
                          capture_output=True, text=True, check=True, cwd=ROOT, stdin=subprocess.DEVNULL)
    assert "8 examples" in done.stdout
    text = page.read_text()
    assert text.count("<audio ") == 8 and "word times guessed" not in text
    for title in ("Frame accuracy, held out", "WER on dev_clean_2", "How often the best senone is right"):
        assert title in text
    assert all(system["name"] in text for system in results(finished)["systems"])


def test_kill_9_in_every_long_stage_then_the_same_results(finished: Path, tones: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    arrivals = {
        "corpus": lambda: (exp / "01_corpus.partial" / "ingredients.json").exists(),
        "features": lambda: (exp / "02_features.partial" / "train").exists(),
        "mono": lambda: (exp / "04_mono.partial" / "work" / "state.safetensors").exists(),
        "tri1": lambda: (exp / "05_tri1.partial" / "work" / "state.safetensors").exists(),
        "tri2b": lambda: (exp / "06_tri2b.partial" / "work" / "state.safetensors").exists(),
        "tri3b": lambda: (exp / "07_tri3b.partial" / "work" / "state.safetensors").exists(),
        "align": lambda: (exp / "09_align.partial" / "train" / "alignment.json").exists(),
        "adapt": lambda: _lines(exp / "12_adapt.partial" / "tune" / "pass1" / "hypotheses.jsonl") > 1,
        "adapt, the second split": lambda: (exp / "12_adapt.partial" / "tune" / "adapted").exists(),
        "teachers": lambda: (exp / "14_teachers.partial" / "teacher2" / "work" / "checkpoint.safetensors").exists(),
        "baseline": lambda: (exp / "18_baseline.partial" / "baseline" / "work" / "checkpoint.safetensors").exists(),
        "student": lambda: (exp / "19_student.partial" / "student" / "work" / "checkpoint.safetensors").exists(),
        "decode": lambda: _lines(exp / "22_decode_teachers.partial/teacher1/dev_clean_2/hypotheses.jsonl") > 3,
    }
    for arrived in arrivals.values():
        kill_when(exp, arrived, tone_settings(tones))
    run(exp, *tone_settings(tones))
    assert measured(exp) == measured(finished)


def _lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def _fails(exp: Path, *extra: str) -> str:
    done = run(exp, *extra, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr[done.stderr.index("asr-distill: error:"):]


def test_faults_are_one_clear_message(tones: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    broken = tmp_path / "tones"
    shutil.copytree(tones, broken)
    audio = sorted((broken / "LibriSpeech/train-clean-5").rglob("*.flac"))
    cut = audio[3]
    cut.write_bytes(cut.read_bytes()[:-3000])
    transcript = next((broken / "LibriSpeech/train-clean-5/101/1").glob("*.trans.txt"))
    lines = transcript.read_text().splitlines()
    transcript.write_text("\n".join([lines[0].split()[0], *lines[1:]]) + "\n")
    message = _fails(exp, *tone_settings(broken))
    assert cut.name in message and "truncated" in message
    assert f"{transcript.name}:1: empty transcript" in message

    assert "did you mean 'teachers'" in _fails(exp, *tone_settings(tones), "--set", "teacher.seeds=[1]")
    nowhere = _fails(exp, *tone_settings(tones), "--set", f"corpus.dir={tmp_path / 'nowhere'}")
    assert "nowhere" in nowhere and "corpus.dir" in nowhere
    assert "lang.arpa" in _fails(exp, "--conf", str(TINY), "--set", f"corpus.dir={tones / 'LibriSpeech'}",
                                 "--set", f"lang.lexicon={tones / 'lexicon.txt'}", "--stop-stage", "lang")
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        assert "--device" in _fails(exp, *tone_settings(tones), "--device", "gpu")


def test_a_full_disk_loses_nothing(tones: Path, finished: Path, tmp_path: Path) -> None:
    """On a small tmpfs: one clear line, exit code 1; with room the same command goes on from there."""
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2600k", "tmpfs", str(small)],
                                      check=False, capture_output=True).returncode:
        pytest.skip("needs root to mount a small tmpfs")
    try:
        exp = small / "exp"
        message = _fails(exp, *tone_settings(tones))
        assert "space" in message and message.count("\n") == 1
        stages = {path.name for path in exp.glob("[0-9][0-9]_*") if (path / "stage.json").exists()}
        assert "01_corpus" in stages
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        log = run(exp, *tone_settings(tones)).stderr
        assert log.count("done before, nothing changed") == len(stages)
        assert measured(exp) == measured(finished)
    finally:
        subprocess.run(["umount", str(small)], check=False)
