"""The one place that imports the Kaldi wheels, and in the one safe order.

kaldi_hmm_gmm registers C++ types that kaldifst and kaldi_decoder share, so it is loaded first (a dead-lock
was once seen in the other order). Import them from here: `from asr_distill.kaldi import kaldifst`.
"""

# isort: off
import kaldi_hmm_gmm
import kaldifst
import kaldi_decoder
# isort: on

__all__ = ["kaldi_decoder", "kaldi_hmm_gmm", "kaldifst"]
