"""One student in every form and runtime: WER, words that differ, bytes, speed and memory, in one table.

    python benchmarks/deploy.py RECOGNISER --dev DEV_CLEAN [--dev-ids FILE] [--utterances N] --out FOLDER

RECOGNISER: what a recipe's export stage wrote, or the experiment's folder. Each system is exported to FOLDER, then
decodes on one core in a process of its own; a run that was stopped goes on where it was. The table is FOLDER/table.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import kaldialign
import torch
from dev_arguments import dev_parser

from asr_distill.command import guarded
from asr_distill.decode.score import compare, score
from asr_distill.export.devset import DevSet
from asr_distill.export.exporter import exporter_of
from asr_distill.export.exporting import Measured, export, measure, settings_of
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.export.recognise import recognise_here
from asr_distill.export.source import Source
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.features.fbank import Fbank
from asr_distill.files import read_json, write_json, write_text
from asr_distill.logs import log, to_terminal

TORCH = "PyTorch"
SPEED_UTTERANCES, SPEED_ROUNDS = 10, 7
SYSTEMS = {  # name -> target, settings
    TORCH: ("", ()),
    "ONNX float32": ("onnx", ()),
    "ONNX float16": ("onnx", ("precision=float16",)),
    "ONNX int8": ("onnx", ("precision=int8",)),
    "ONNX int8 static": ("onnx", ("precision=int8-static",)),
    "sherpa-onnx float32": ("sherpa-onnx", ()),
    "sherpa-onnx int8": ("sherpa-onnx", ("precision=int8",)),
    "Vosk float32": ("vosk", ()),
    "Vosk lattice beam 6": ("vosk", ("lattice_beam=6",)),  # the exporter's own is narrower
    "Vosk int16": ("vosk", ("precision=int16",)),
}


def main() -> int:
    parser = dev_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    return guarded(run, parser.parse_args())


def run(arguments: argparse.Namespace) -> int:
    to_terminal()
    source = Source.open(arguments.recogniser)
    dev = DevSet.open(arguments.dev, ids=arguments.dev_ids, utterances=arguments.utterances)
    found = {name: _system(name, source, dev, arguments.out) for name in arguments.systems}
    table = _table(found, dev, arguments.out) + _network_speeds(source, dev, arguments.out)
    write_text(arguments.out / "table.md", table)
    print(table)
    return 0


def _system(name: str, source: Source, dev: DevSet, out: Path) -> Measured:
    target, overrides = SYSTEMS[name]
    folder = out / name.replace(" ", "_")
    if target and not (folder / "manifest.json").is_file():
        log.info("%s: exporting", name)
        exporter = exporter_of(target)
        settings = settings_of(exporter, overrides)
        few = dataclasses.replace(dev, utterances=dev.utterances[:16]) if "int8" in settings.precision else None
        export(source, target, folder, settings, dev=few, force=True)
    record = out / f"{name.replace(' ', '_')}.json"
    if not record.is_file():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(_measure, (name, source.directory, folder, dev))
        write_json(record, dataclasses.asdict(result))
    kept = read_json(record)
    return Measured({id: tuple(words) for id, words in kept["words"].items()}, kept["rtf"], kept["peak_bytes"])


def _measure(name: str, recogniser: Path, folder: Path, dev: DevSet) -> Measured:
    torch.set_num_threads(1)
    to_terminal()
    source, target = Source.open(recogniser), SYSTEMS[name][0]
    return measure(exporter_of(target) if target else _Torch(), source, folder, dev)  # type: ignore[arg-type]


class _Torch:
    """The student as it was trained, in the place of an exporter."""

    name = TORCH

    def recognise(self, source: Source, directory: Path, speech: Iterator) -> Iterator:
        return recognise_here(source.model, source, speech)


def _network_speeds(source: Source, dev: DevSet, out: Path) -> str:
    """The ONNX networks alone on one core, in turns, the least of several rounds; "" where they are not there."""
    folders = {name: out / name.replace(" ", "_") for name in SYSTEMS if name.startswith("ONNX")}
    models = {name: OnnxModel(folder) for name, folder in folders.items() if folder.is_dir()}
    few = dataclasses.replace(dev, utterances=dev.utterances[:SPEED_UTTERANCES])
    speech = [torch.from_numpy(spoken.samples) for spoken in few.speech(source.features.sample_rate)]
    frames = [UtteranceFeatures(each) for each in Fbank(source.features, torch.device("cpu"))(speech)]
    seconds = sum(len(each.raw) for each in frames) * source.features.frame_shift_ms / 1000
    least = dict.fromkeys(models, float("inf"))
    for _ in range(SPEED_ROUNDS):
        for name, model in models.items():
            began = time.process_time()
            for each in frames:
                model.log_likelihoods(each)
            least[name] = min(least[name], (time.process_time() - began) / seconds)
    first = next(iter(least.values()), 0.0)
    return "".join(f"\n{name}, network alone: RTF {rtf:.5f} ({first / rtf:.2f} x the first's speed)"
                   for name, rtf in least.items()) + "\n"


def _table(found: dict[str, Measured], dev: DevSet, out: Path) -> str:
    own, references = found[TORCH], dev.references
    words = sum(map(len, references.values()))
    lines = [f"{len(dev.utterances):,} utterances, {words:,} words of {dev.name}; one core; RTF: features, network and "
             "search; difference: to PyTorch, with p of the paired test.", "",
             "| form | WER % | 95 % | difference | words that differ | network bytes | all bytes | RTF | peak MB |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, measured in found.items():
        rate, paired = score(references, measured.words), compare(references, own.words, measured.words)
        differ = sum(kaldialign.edit_distance(list(own.words[id]), list(heard))["total"]
                     for id, heard in measured.words.items())
        manifest = out / name.replace(" ", "_") / "manifest.json"
        facts = read_json(manifest) if manifest.is_file() else {}
        sizes = (f"{facts['network_bytes']:,}", f"{sum(entry['bytes'] for entry in facts['files'].values()):,}"
                 ) if facts else ("", "")
        difference = "" if name == TORCH else f"{paired.wer_difference:+.2f} (p = {paired.p:.2g})"
        lines.append(f"| {name} | {rate.wer:.2f} | {rate.wer_low:.2f} to {rate.wer_high:.2f} | {difference} | "
                     f"{differ} | {sizes[0]} | {sizes[1]} | {measured.rtf:.3f} | {measured.peak_bytes / 1e6:,.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
