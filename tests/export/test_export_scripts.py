"""The scripts that lie in an export, without the runtime that they are for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

import asr_distill.export

SCRIPTS = Path(asr_distill.export.__file__).parent / "scripts"


@pytest.fixture
def vosk_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "vosk", ModuleType("vosk"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(SCRIPTS / "shared"))
    spec = importlib.util.spec_from_file_location("vosk_transcribe", SCRIPTS / "vosk" / "transcribe.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("reader", ["blocks", "wav_blocks"])
def test_a_wav_of_too_low_a_rate_is_refused(vosk_script: ModuleType, tmp_path: Path, reader: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(800), 8000, subtype="PCM_16")
    with pytest.raises(SystemExit, match=r"a.wav: 8000 samples a second, the model needs 16000 or more; convert it"):
        list(getattr(vosk_script, reader)(str(path), 16000))
    assert [rate for _, rate in getattr(vosk_script, reader)(str(path), 8000)] == [8000]
