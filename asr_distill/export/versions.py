"""Versions of what made a result, for manifests and tables."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from asr_distill import __version__

PACKAGES = ("torch", "torchaudio", "numpy", "kaldi-hmm-gmm", "kaldifst", "kaldi-decoder", "kaldialign",
            "kaldilm", "lhotse", "numba", "onnx", "onnxruntime", "sherpa-onnx", "vosk")


def package_versions() -> dict[str, str]:
    """{package: version} of those that are installed, with asr_distill and python first."""
    versions = {"asr_distill": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
