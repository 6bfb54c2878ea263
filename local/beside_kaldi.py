"""mini_librispeech beside Kaldi: one table of every rung, from a finished run's RESULTS.json.

    python local/beside_kaldi.py exp/mini_librispeech/RESULTS.json
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asr_distill.command import guarded
from asr_distill.errors import UserError
from asr_distill.report.figures import number, wer
from asr_distill.report.results import RESCORED, Results, System
from asr_distill.report.tables import table
from local.mini_librispeech import TEST


@dataclass(frozen=True)
class Kaldi:
    """Figures of Kaldi's own recipe on dev-clean-2: WER with a small and a large model, seconds of training."""

    same: str  # with the reference lexicon and language models
    published: str  # with LibriSpeech's own
    seconds: int | None = None


# "same": real Kaldi (2025-07), stock options, weight and insertion penalty chosen on the reported set itself; mono and
# tri1 on the third of it (363 utterances). "published": the RESULTS file of Kaldi's mini_librispeech recipe.
KALDI = {
    "mono": Kaldi("49.44 (third) / –", "49.18 / –", 123),
    "tri1": Kaldi("28.92 (third) / –", "27.37 / –", 147),
    "tri2b": Kaldi("25.53 / 23.77", "24.32 / –", 192),
    "tri3b": Kaldi("18.91 / 17.50", "18.10 / 13.45", 204),
    "ensemble": Kaldi("–", "16.03 / 11.66 (one TDNN-LSTM, 8.4 M)"),
}
KALDI_ALIGNMENTS = 49  # seconds of the alignments between its rungs; ours are inside each rung's time


def beside_kaldi(results: Results) -> str:
    """A Markdown table: our WER with both language models and intervals, Kaldi's beside it, seconds of each stage.

    Raises UserError where the results are not of dev-clean-2 or hold no decoded rung.
    """
    systems = {system.name: system for system in results.systems if TEST in system.splits}
    if not any(name in systems for name in KALDI):
        raise UserError(f"these results hold no rung decoded on {TEST}: they are not of a mini_librispeech run whose "
                        "decode.systems names the rungs")
    rows = []
    for name, system in systems.items():
        if name.endswith(RESCORED):
            continue
        kaldi = KALDI.get(name)
        seconds = results.stages.get(name) if results.stages else None
        rows.append([name, _wer(system), _wer(systems.get(name + RESCORED)), kaldi.same if kaldi else "–",
                     kaldi.published if kaldi else "–", number(seconds, 0),
                     str(kaldi.seconds) if kaldi and kaldi.seconds else "–"])
    return "\n".join([table(["system", "WER % [95 %]", "large model", "Kaldi, same lexicon and models",
                             "Kaldi, published", "seconds", "Kaldi's"], rows, left=1), "", _ladder(results)])


def _ladder(results: Results) -> str:
    ours = sum(results.stages.get(rung, 0.0) for rung in KALDI if rung != "ensemble") if results.stages else 0.0
    theirs = sum(kaldi.seconds or 0 for kaldi in KALDI.values()) + KALDI_ALIGNMENTS
    return (f"The ladder with its alignments: {ours:.0f} s, Kaldi's {theirs} s (another machine, under load): "
            f"ratio {ours / theirs:.2f}.")


def _wer(system: System | None) -> str:
    return wer(system.splits[TEST] if system else None)


def run(arguments: argparse.Namespace) -> int:
    print(beside_kaldi(Results.load(arguments.results)))
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("results", type=Path, help="RESULTS.json of a run of recipes/mini_librispeech")
    return guarded(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
