"""What every form of a recogniser is made from: the directory that a recipe's export stage wrote, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from asr_distill.acoustic.model import AcousticModel
from asr_distill.decode.decoder import SearchConfig
from asr_distill.errors import UserError
from asr_distill.export.bundle import GRAPH_FILE, SOURCE_FILES, Bundle
from asr_distill.features.fbank import FbankConfig
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.lang import Lang
from asr_distill.lang.lexicon import SILENCE_PHONE


@dataclass(frozen=True)
class Source:
    """A student with all that belongs to it, on the CPU."""

    directory: Path
    model: AcousticModel
    hmm: HmmModel
    lang: Lang
    search: SearchConfig
    features: FbankConfig

    @staticmethod
    def open(directory: Path, *, check_graph: bool = True) -> Source:
        """`directory`: a recogniser, or the folder of an experiment that has exported one; `check_graph` False skips
        the digest of its search graph.

        Raises UserError where a file is missing, damaged, or of an older export that lacks the network's weights.
        """
        directory = recogniser_in(Path(directory))
        bundle = Bundle.load(directory, check_graph=check_graph, check_sources=True)
        for name in SOURCE_FILES:
            if not (directory / name).is_file():
                raise UserError(f"{directory}: holds no {name}, so no other form can be made from it; run the recipe's "
                                "export stage again")
        return Source(directory, AcousticModel.load(directory, torch.device("cpu")), HmmModel.load(directory),
                      Lang(directory), bundle.search, bundle.features)

    def graph(self) -> FstArrays:
        """HCLG: input label pdf + 1, output label word id."""
        return FstArrays.read(self.directory / GRAPH_FILE)

    def silence_pdfs(self) -> list[int]:
        """The pdfs of the silence phone's states, whatever phones are around it."""
        phone, tree = self.lang.phone_ids[SILENCE_PHONE], self.hmm.tree
        around = range(len(self.hmm.phones) + 1) if tree.context_width > 1 else range(1)
        return sorted({tree.pdf(left, phone, right, state) for state in range(self.hmm.states[phone - 1])
                       for left in around for right in around})


def recogniser_in(directory: Path) -> Path:
    """The directory itself, or the recogniser that an experiment's export stage left in it; of several (of versions
    that numbered the stage otherwise) the newest."""
    if (directory / "manifest.json").is_file():
        return directory
    made = sorted((file.stat().st_mtime, file.parent) for file in directory.glob("*_export/recogniser/manifest.json"))
    return made[-1][1] if made else directory
