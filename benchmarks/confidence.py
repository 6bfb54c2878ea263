"""How good the words' confidences of `asr-distill transcribe` are, beside the mean posterior of their frames.

    python benchmarks/confidence.py RECOGNISER --dev DEV_CLEAN [--dev-ids FILE] [--utterances N]

NCE: NIST's normalised cross-entropy (1 is perfect, below 0 is worse than one number for all words). ROC: the chance
that a right word has more confidence than a wrong one.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from dev_arguments import dev_parser

from asr_distill.command import guarded
from asr_distill.decode.confidence import correct_words, normalised_cross_entropy, roc_area
from asr_distill.decode.posteriors import word_posteriors
from asr_distill.export.devset import DevSet
from asr_distill.export.source import recogniser_in
from asr_distill.export.transcribe import Transcriber
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.hmm.align import align_words
from asr_distill.logs import to_terminal
from asr_distill.progress import Progress

LATTICE, FRAMES = "posterior in the lattice", "mean posterior of frames"


def main() -> int:
    return guarded(run, dev_parser(__doc__).parse_args())


def run(arguments: argparse.Namespace) -> int:
    to_terminal()
    torch.set_num_threads(1)
    transcriber = Transcriber(recogniser_in(arguments.recogniser))
    dev = DevSet.open(arguments.dev, ids=arguments.dev_ids, utterances=arguments.utterances)
    found: dict[str, list[float]] = {LATTICE: [], FRAMES: []}
    correct: list[bool] = []
    with Progress("confidence", len(dev.utterances), "utterances") as progress:
        for utterance, spoken in zip(dev.utterances, dev.speech(transcriber.bundle.features.sample_rate), strict=True):
            words, lattice, frames = both(transcriber, spoken.samples)
            correct += correct_words(utterance.words, words).tolist()
            found[LATTICE] += lattice
            found[FRAMES] += frames
            progress.update()
    right = np.array(correct)
    print(f"{len(dev.utterances):,} utterances of {dev.name}; of {len(right):,} words heard {100 * right.mean():.1f} % "
          "are right\n")
    for name, values in found.items():
        confidences = np.array(values)
        print(f"{name:26} NCE {normalised_cross_entropy(confidences, right):6.3f}   "
              f"ROC {roc_area(confidences, right):.3f}   mean {confidences.mean():.3f}")
    return 0


def both(transcriber: Transcriber, samples: np.ndarray) -> tuple[tuple[str, ...], list[float], list[float]]:
    """Words of one utterance, and both confidences of each."""
    frames = transcriber.fbank([torch.from_numpy(samples)])[0]  # (frames, coefficients)
    log_likelihoods = transcriber.model.log_likelihoods(UtteranceFeatures(frames))  # (frames, pdfs)
    lattice = transcriber.decoder.lattice(log_likelihoods.numpy())
    if lattice is None:
        return (), [], []
    ids, confidences = word_posteriors(lattice, transcriber.bundle.search.acoustic_scale)
    words = tuple(transcriber.decoder.words[word] for word in ids)
    if not words:
        return (), [], []
    spans = align_words(log_likelihoods, words, *transcriber.language, transcriber.align_config)
    return words, confidences.tolist(), [span.confidence for span in spans]


if __name__ == "__main__":
    sys.exit(main())
