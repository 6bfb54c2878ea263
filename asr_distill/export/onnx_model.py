"""An exported network as an emission model, through onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from asr_distill.errors import UserError
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.files import file_digest

NETWORK_FILE = "network.onnx"


class OnnxModel:
    """EmissionModel of `network.onnx` (or of the bundle that holds it); a teacher too, as acoustic.accuracy's
    PosteriorModel: what it was trained by need not be at hand.

    Raises UserError where the file is missing, damaged or not a network of this program.
    """

    def __init__(self, path: Path, *, threads: int = 1):
        path = Path(path)
        self.path = path / NETWORK_FILE if path.is_dir() else path
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file; export the student first")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(self.path), options, ["CPUExecutionProvider"])
            facts = self.session.get_modelmeta().custom_metadata_map
            self._num_pdfs, self.num_coefficients = int(facts["num_pdfs"]), int(facts["num_coefficients"])
            self.left, self.right = int(facts["left"]), int(facts["right"])
            self.log_priors = torch.tensor(json.loads(facts["log_priors"]))  # float32 (pdfs,)
            # absent in files of version 0.1
            self._divided, self._scale = (json.loads(facts.get(name, default)) for name, default in (
                ("priors_divided", "true"), ("acoustic_scale", "1.0")))
        except KeyError:
            raise UserError(f"{self.path}: an ONNX file, but not one that this program exported") from None
        except Exception as error:  # onnxruntime's exceptions share no other base class
            raise UserError(f"{self.path}: not a readable ONNX network "
                            f"({str(error).splitlines()[0][:160]}); export it again") from None

    def __reduce__(self) -> tuple[type[OnnxModel], tuple[Path]]:
        """By path, where it is sent to a worker: a session cannot be. There it has one thread."""
        return OnnxModel, (self.path,)

    @property
    def num_pdfs(self) -> int:
        return self._num_pdfs

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def fingerprint(self) -> str:
        """Digest of the file, for whoever keeps what this model gave (distill's soft targets)."""
        return file_digest(self.path)

    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        """log softmax(logits / temperature), float32 (frames, pdfs).

        The file gives log p - log prior, p = softmax(logits); log p is the logits less a number of the frame, which
        the softmax at any temperature takes out again.
        """
        return torch.log_softmax((self.log_likelihoods(utterance) + self.log_priors) / temperature, 1)

    def log_likelihoods(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """log posterior minus log prior, unscaled (whatever the file gives), float32 (frames, pdfs), on the CPU. The
        speaker is not used.
        """
        raw = utterance.raw.detach().cpu().float().contiguous().numpy()  # (frames, coefficients)
        if raw.ndim != 2 or raw.shape[1] != self.num_coefficients:
            raise UserError(f"{self.path}: takes {self.num_coefficients} coefficients a frame, "
                            f"not frames of shape {tuple(raw.shape[1:])}")
        if len(raw) == 0:
            return torch.zeros(0, self.num_pdfs)
        output: np.ndarray = self.session.run(None, {"features": raw[np.newaxis]})[0]
        scores = torch.from_numpy(output[0])
        if self._scale != 1:
            scores = scores / self._scale
        return scores if self._divided else scores - self.log_priors
