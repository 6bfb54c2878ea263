"""`asr-distill bench`: every script of benchmarks/ one after another, each in a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from asr_distill.device import device_of
from asr_distill.errors import UserError, nearest
from asr_distill.recipe_command import ROOT


@dataclass(frozen=True)
class Benchmark:
    """A script and what it measures; `on_device` ones take --device, the rest run on the CPU by nature."""

    script: str
    measures: str
    on_device: bool = False
    arguments: tuple[str, ...] = ()


BENCHMARKS = (
    Benchmark("features", "log-mel features, FLAC to frame store; beside torchaudio, kaldi-native-fbank, lhotse", True),
    Benchmark("trainer", "share of the machine's matrix-product rate that the trainer reaches", True),
    Benchmark("distill", "soft targets: bytes, error, rates of each form; distillation step beside a plain one", True),
    Benchmark("hmm", "alignment and GMM statistics, beside kaldi_decoder and kaldi_hmm_gmm"),
    Benchmark("decoder", "beam search: RTF and memory, beside kaldi_decoder alone and k2py"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*",
                        help=f"which ({', '.join(item.script for item in BENCHMARKS)}; default all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--out", type=Path, help="keep the printed tables in this file too")


def run(arguments: argparse.Namespace) -> int:
    """Run them; exit code 1 where one of them failed (the others still run)."""
    known = {item.script: item for item in BENCHMARKS}
    for name in arguments.names:
        if name not in known:
            raise UserError(f"no benchmark '{name}'{nearest(name, known)}; known: {', '.join(known)}")
    if arguments.out and not arguments.out.absolute().parent.is_dir():
        raise UserError(f"--out {arguments.out}: its folder does not exist; make it first")
    device = str(device_of(arguments.device))
    folder = ROOT / "benchmarks"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; benchmarks live in a checkout of asr_distill")
    printed, failed = [], []
    for item in [known[name] for name in arguments.names] or BENCHMARKS:
        title = f"== {item.script}: {item.measures}"
        print(title, flush=True)
        command = [sys.executable, str(folder / f"{item.script}.py"), *item.arguments]
        start = time.monotonic()
        done = subprocess.run([*command, *(["--device", device] if item.on_device else [])], cwd=ROOT,
                              stdout=subprocess.PIPE, text=True, check=False)
        printed.append(f"{title}\n{done.stdout}")
        print(done.stdout, f"({time.monotonic() - start:.0f} s)\n", flush=True)
        if done.returncode:
            failed.append(item.script)
    if arguments.out:
        arguments.out.write_text("\n".join(printed), encoding="utf-8")
    if failed:
        raise UserError(f"benchmarks that failed: {', '.join(failed)} (their messages stand above)")
    return 0
