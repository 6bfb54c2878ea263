"""A recogniser to a directory of another form: written beside its place, measured, judged, and only then put there."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.config import load_settings, to_dict
from asr_distill.errors import UserError
from asr_distill.export.devset import DevSet
from asr_distill.export.exporter import Exporter, Written, exporter_of
from asr_distill.export.gate import GateConfig, Verdict, judge
from asr_distill.export.manifest import MANIFEST, check_replaceable, new_directory, write_manifest
from asr_distill.export.source import Source
from asr_distill.features.fbank import Fbank
from asr_distill.files import write_text
from asr_distill.logs import log
from asr_distill.progress import Progress

README = "README.md"
COMPRESSED_BY = 16  # utterances: integer layers are judged, and static ranges measured, on so many
GATE = GateConfig()


@dataclass(frozen=True)
class Measured:
    """Words of every utterance, CPU seconds on one core a second of audio, and the peak of the process's memory."""

    words: dict[str, tuple[str, ...]]
    rtf: float
    peak_bytes: int = 0


def export(source: Source, target: str, out: Path, settings: Any, *, dev: DevSet | None = None,
           gate: GateConfig = GATE, force: bool = False, reference: Measured | None = None) -> dict[str, Any]:
    """Write the directory `out` (replacing an earlier export there); returns what its manifest tells.

    With `dev` the export is decoded as its users do, and refused where it is worse than the recogniser itself by more
    than the gate allows, unless `force`. `reference`: what the recogniser hears on `dev`, where it is known already.
    Raises UserError for a refused export (nothing is left of it), a runtime that is not installed, or a source that
    cannot be brought into this form.
    """
    exporter = exporter_of(target)
    if dev is not None:
        check_runtime(exporter)
    check_replaceable(out, "earlier export", source.directory)
    with new_directory(out) as work:
        written = exporter.write(source, work, settings, _some_speech(source, dev))
        manifest = _seal(exporter, written, work, settings, {})
        if dev is not None:
            verdict, rtf = _judge(exporter, source, work, dev, gate, reference)
            _report(verdict, target, force)
            figures = {"dev": dev.name, "rtf": round(rtf, 4), **verdict.figures()}
            manifest = _seal(exporter, written, work, settings, figures)
    return manifest


def measure(exporter: Exporter, source: Source, directory: Path, dev: DevSet) -> Measured:
    """What an export hears on the development set."""
    words: dict[str, tuple[str, ...]] = {}
    spent = seconds = 0.0
    peak = 0
    lengths: dict[str, float] = {}

    def speech() -> Any:
        for spoken in dev.speech(source.features.sample_rate):
            lengths[spoken.id] = len(spoken.samples) / source.features.sample_rate
            yield spoken

    with Progress(f"{exporter.name}: {dev.name}", len(dev.utterances), "utterances") as progress:
        for heard in exporter.recognise(source, directory, speech()):
            words[heard.id] = heard.words
            spent += heard.seconds
            seconds += lengths[heard.id]
            peak = max(peak, heard.peak_bytes)
            progress.update(1)
    return Measured(words, spent / seconds if seconds else 0.0, peak)


def check_runtime(exporter: Exporter) -> None:
    """Raises UserError where what decodes the export is not installed."""
    missing = [name for name in exporter.runtime if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"measuring an export to {exporter.name} needs the package {missing[0].replace('_', '-')}: "
                        f"pip install {missing[0].replace('_', '-')} (or export without --dev)")


def _some_speech(source: Source, dev: DevSet | None) -> list[np.ndarray]:
    """Frames of a few utterances of the development set."""
    if dev is None:
        return []
    few = dataclasses.replace(dev, utterances=dev.utterances[::-(-len(dev.utterances) // COMPRESSED_BY)])
    fbank = Fbank(source.features, torch.device("cpu"))
    return [fbank([torch.from_numpy(spoken.samples)])[0].numpy() for spoken in few.speech(source.features.sample_rate)]


def _judge(exporter: Exporter, source: Source, directory: Path, dev: DevSet, gate: GateConfig,
           reference: Measured | None) -> tuple[Verdict, float]:
    own = reference or measure(exporter_of("onnx"), source, source.directory, dev)
    found = measure(exporter, source, directory, dev)
    return judge(dev.references, own.words, found.words, gate), found.rtf


def _report(verdict: Verdict, target: str, force: bool) -> None:
    if verdict.refused and not force:
        raise UserError(f"this export to {target} is refused: {verdict.line()}. Another precision, another margin "
                        "(--margin) or --force goes on all the same")
    log.info("%s: %s", target, verdict.line())
    if verdict.refused:
        log.warning("%s: worse than the margin allows; written all the same (--force)", target)
    elif verdict.unsure:
        log.warning("%s: worse than the margin, but by too few words to tell it from chance: measure on more speech",
                    target)


def _seal(exporter: Exporter, written: Written, directory: Path, settings: Any, figures: dict[str, Any],
          ) -> dict[str, Any]:
    """README.md and, last, manifest.json."""
    network = sum((directory / name).stat().st_size for name in written.network)
    wer = (f"WER {figures['score']['wer']:.2f} % ({figures['score']['wer_low']:.2f} to "
           f"{figures['score']['wer_high']:.2f}) on {figures['dev']} at export" if figures else
           "word error rate not measured at export")
    write_text(directory / README,
               f"A speech recogniser made by asr_distill, for {exporter.name} ({settings.precision}): "
               f"{exporter.summary}.\n{written.usage}\nNetwork {network:,} bytes; {wer}; "
               f"{MANIFEST} holds size and sha256 of every file.\n")
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*")
             if path.is_file() and path.name != MANIFEST]
    facts = {"kind": exporter.name, "settings": to_dict(settings), "facts": written.facts,
             "network_bytes": network, "figures": figures}
    files = write_manifest(directory, names, facts)
    return facts | {"bytes": sum(entry["bytes"] for entry in files.values())}


def settings_of(exporter: Exporter, overrides: Sequence[str]) -> Any:
    """The target's settings with `key=value` overrides. Raises UserError for an unknown key or a wrong value."""
    return load_settings(exporter.settings_class, (), overrides)


def default_out(target: str, settings: Any) -> Path:
    """Where an export goes when nobody says so: a folder here, named after target and precision."""
    plain = type(settings)().precision
    return Path(target if settings.precision == plain else f"{target}-{settings.precision}")
