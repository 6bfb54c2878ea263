"""The Kaldi wheels load together, share their types, and are imported nowhere but in asr_distill.kaldi."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
import sys
from asr_distill.kaldi import kaldi_decoder, kaldi_hmm_gmm, kaldifst
order = [n for n in sys.modules if n in ("kaldi_hmm_gmm", "kaldifst", "kaldi_decoder")]
assert order[0] == "kaldi_hmm_gmm", order
import numpy as np
fst = kaldifst.StdVectorFst()
fst.start = fst.add_state()
fst.set_final(fst.start, 0.0)
fst.add_arc(fst.start, kaldifst.StdArc(1, 1, 0.0, fst.start))
decoder = kaldi_decoder.FasterDecoder(fst, kaldi_decoder.FasterDecoderOptions())
decoder.decode(kaldi_decoder.DecodableCtc(np.zeros((3, 2), np.float32)))
assert decoder.reached_final()
kaldi_hmm_gmm.monophone_context_dependency([1, 2], [0, 3, 3])
"""


def test_wheels_load_in_order_and_share_types() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_no_other_module_imports_the_wheels() -> None:
    direct = re.compile(r"^\s*(?:import|from)\s+(?:kaldi_hmm_gmm|kaldifst|kaldi_decoder)\b", re.MULTILINE)
    offenders = [str(file.relative_to(ROOT)) for folder in ("asr_distill", "recipes", "local", "benchmarks")
                 for file in (ROOT / folder).rglob("*.py")
                 if file != ROOT / "asr_distill/kaldi.py" and direct.search(file.read_text("utf-8"))]
    assert not offenders, f"import from asr_distill.kaldi instead: {offenders}"
