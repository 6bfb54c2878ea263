"""One directory that holds a whole recogniser, and the checks that open it.

    network.onnx                     raw log-mel -> pdf log-likelihoods
    HCLG.fst, words.txt              search graph (input label = pdf + 1, output label = word id)
    lexiconp.txt, phones.txt, lang.json, hmm.json    what forced alignment needs for word times
    settings.json                    features, CMVN, search, sizes, format version
    model.json, weights.safetensors, L_disambig.fst, G.fst    what other forms are made from (asr-distill export)
    manifest.json                    size and sha256 of every file, versions, figures at export
    README.md                        for whoever finds the directory
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.acoustic.model import AcousticModel
from asr_distill.config import build, to_dict
from asr_distill.decode.decoder import SearchConfig
from asr_distill.errors import UserError
from asr_distill.export.manifest import (
    AGAIN,
    FORMAT_VERSION,
    MANIFEST,
    check_version,
    read_manifest,
    write_manifest,
)
from asr_distill.export.onnx import ExportableModel, export_onnx
from asr_distill.export.onnx_model import NETWORK_FILE
from asr_distill.features.fbank import FbankConfig
from asr_distill.files import atomic_path, read_json, write_json, write_text
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import Lang

GRAPH_FILE = "HCLG.fst"
LANG_FILES = ("lexiconp.txt", "phones.txt", "words.txt", "lang.json")
MODEL_FILES, GRAMMAR_FILES = ("model.json", "weights.safetensors"), ("L_disambig.fst", "G.fst")
SOURCE_FILES = (*MODEL_FILES, *GRAMMAR_FILES)  # no part of transcribing


@dataclass(frozen=True)
class Bundle:
    """An opened directory. `figures` are what was measured at export (word error rates, if any)."""

    directory: Path
    features: FbankConfig
    search: SearchConfig
    cmvn: dict[str, Any]
    num_pdfs: int
    figures: dict[str, Any]

    @staticmethod
    def load(directory: Path, *, check_graph: bool = True, check_sources: bool = False) -> Bundle:
        """Open a directory after checking every file's size and, of those that transcribing reads, the sha256 digest.

        `check_graph` False skips the digest of the graph (the one large file); `check_sources` True adds those of what
        other forms are made from. Raises UserError for a missing, damaged or foreign file, or another format version.
        """
        directory = Path(directory)
        unread = {*(() if check_graph else (GRAPH_FILE,)), *(() if check_sources else SOURCE_FILES)}
        manifest = read_manifest(directory, digested=lambda name: name not in unread,
                                 required=(NETWORK_FILE, GRAPH_FILE, *LANG_FILES, "hmm.json", "settings.json"))
        settings = read_json(directory / "settings.json")
        check_version(directory / "settings.json", settings)
        try:
            return Bundle(directory, build(FbankConfig, settings["features"]), build(SearchConfig, settings["search"]),
                          settings["cmvn"], settings["num_pdfs"], manifest["figures"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{directory / 'settings.json'}: not of this form ({error!r}); {AGAIN}") from None


def export_bundle(model: ExportableModel, hmm: HmmModel, lang: Lang, graph_dir: Path, search_config: SearchConfig,
                  fbank_config: FbankConfig, out: Path, figures: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write the directory `out`; its manifest comes last, so an interrupted export is never taken for a whole one.

    `figures` (plain data, as {"wer": {"test": 12.3}}) is kept in the manifest and shown in the README.
    Returns {"bytes", "network_bytes", "graph_bytes", "parameters", "files"}. Raises UserError where model, HMM,
    language and graph do not belong together, or the model's CMVN needs the speaker.
    """
    _check_parts(model, hmm, lang, graph_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    cmvn = {"kind": model.cmvn.kind, "window": model.cmvn.window, "prior_frames": model.cmvn.prior_frames}
    export_onnx(model, out / NETWORK_FILE, {"features": to_dict(fbank_config)})
    _copy(graph_dir / GRAPH_FILE, out)
    for name in lang.alignment_files:
        _copy(lang.directory / name, out)
    hmm.save(out)
    sources: list[str] = []
    if isinstance(model, AcousticModel):
        model.save(out)
        sources += MODEL_FILES
    for name in GRAMMAR_FILES:
        if (lang.directory / name).is_file():
            _copy(lang.directory / name, out)
            sources.append(name)
    write_json(out / "settings.json", {
        "format_version": FORMAT_VERSION, "features": to_dict(fbank_config), "cmvn": cmvn,
        "search": to_dict(search_config), "acoustic_scale": search_config.acoustic_scale, "beam": search_config.beam,
        "num_pdfs": len(model.log_priors), "left_context": int(model.network.left),
        "right_context": int(model.network.right), "frame_shift_seconds": fbank_config.frame_shift_ms / 1000})
    kept = dict(figures or {})
    write_text(out / "README.md", _readme(model, kept))
    names = (NETWORK_FILE, GRAPH_FILE, *lang.alignment_files, "hmm.json", "settings.json", "README.md")
    files = write_manifest(out, (*names, *sources), {"figures": kept})
    return {"bytes": sum(entry["bytes"] for entry in files.values()), "network_bytes": files[NETWORK_FILE]["bytes"],
            "graph_bytes": files[GRAPH_FILE]["bytes"], "files": len(files) + 1,
            "parameters": sum(parameter.numel() for parameter in model.network.parameters())}


def _check_parts(model: ExportableModel, hmm: HmmModel, lang: Lang, graph_dir: Path) -> None:
    if len(model.log_priors) != hmm.num_pdfs:
        raise UserError(f"the model has {len(model.log_priors)} pdfs and the HMM {hmm.num_pdfs}: they are of two trees")
    if lang.phones != hmm.phones:
        raise UserError(f"{lang.directory}: its phones are not those of the HMM: they are of two languages")
    for name in (GRAPH_FILE, "words.txt"):
        if not (graph_dir / name).is_file():
            raise UserError(f"{graph_dir / name}: no such file; compile the graph first")
    if (graph_dir / "words.txt").read_bytes() != (lang.directory / "words.txt").read_bytes():
        raise UserError(f"{graph_dir / 'words.txt'}: differs from {lang.directory / 'words.txt'}: "
                        "graph and language do not belong together; compile the graph again")


def _copy(source: Path, out: Path) -> None:
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    with atomic_path(out / source.name) as temporary:
        shutil.copyfile(source, temporary)


def _readme(model: ExportableModel, figures: Mapping[str, Any]) -> str:
    rates = figures.get("wer")
    measured = "".join(f"Word error rate on {split} at export: {wer:.2f} %.\n" for split, wer in rates.items()) \
        if isinstance(rates, Mapping) else ""
    return ("# A speech recogniser made by asr_distill\n\n"
            "    asr-distill transcribe THIS_DIRECTORY recording.wav\n"
            "    asr-distill transcribe THIS_DIRECTORY recording.flac --json     # with word times\n\n"
            f"{measured}"
            f"network.onnx: raw log-mel frames (batch, frames, {len(model.cmvn.train.mean)}), normalised inside "
            f"({model.cmvn.kind}), to log-likelihoods of {len(model.log_priors)} pdfs. HCLG.fst: OpenFst, "
            "input label = pdf + 1, output label = line of words.txt. Scale the log-likelihoods by acoustic_scale of\n"
            "settings.json before the search. manifest.json holds size and sha256 of every file.\n")
