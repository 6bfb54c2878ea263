"""Words that a recogniser never had, added to it: how many are heard, and what that costs the others.

    python benchmarks/vocabulary.py RECOGNISER --dev DEV_CLEAN --out FOLDER [--utterances N] [--probability P ...]

RECOGNISER: what a recipe's export stage wrote, or the experiment's folder. Of the speech in DEV_CLEAN it takes N
utterances that hold words which the recogniser's language model lacks, and as many that hold none, spread evenly. The
words that they hold and it lacks are added as bare words: CMUdict or g2p says how they are said. Both recognisers
decode the same utterances on one core; a run that was stopped goes on where it was. The table is FOLDER/table.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from dev_arguments import dev_parser

from asr_distill.command import guarded
from asr_distill.decode.score import compare, score
from asr_distill.errors import UserError
from asr_distill.export.devset import DevSet, DevUtterance
from asr_distill.export.exporter import exporter_of
from asr_distill.export.exporting import Measured, measure
from asr_distill.export.source import Source, recogniser_in
from asr_distill.export.vocabulary import VocabularyConfig, change_vocabulary, summary
from asr_distill.files import read_json, write_json, write_text
from asr_distill.lang.backoff_graph import BackoffGraph
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.lang import Lang
from asr_distill.logs import log, to_terminal

Texts = Mapping[str, Sequence[str]]


def main() -> int:
    parser = dev_parser(__doc__, utterances=60, meaning="of each kind (default 60)")
    parser.add_argument("--probability", type=float, nargs="+", default=[1e-4], help="of each new word (default 1e-4)")
    parser.add_argument("--g2p", type=Path, help="folder that keeps the model which guesses pronunciations")
    parser.add_argument("--out", type=Path, required=True)
    return guarded(run, parser.parse_args())


def run(arguments: argparse.Namespace) -> int:
    to_terminal()
    torch.set_num_threads(1)
    recogniser, out = recogniser_in(arguments.recogniser), arguments.out
    every = DevSet.open(arguments.dev, ids=arguments.dev_ids)
    known = modelled(recogniser)
    lacking = _lacking(every, known)
    if not lacking:
        raise UserError(f"{arguments.dev}: the recogniser's language model has every word of it")
    groups = {"with new words": _some(every, set(lacking), True, arguments.utterances),
              "without": _some(every, set(lacking), False, arguments.utterances)}
    new = _lacking(groups["with new words"], known)
    before = {name: _decoded(recogniser, dev, out / f"before_{number}.json")
              for number, (name, dev) in enumerate(groups.items())}
    log.info("%d words are new", len(new))
    write_text(out / "words.txt", "".join(f"{word}\n" for word in new))
    lines = [_head(groups, new)]
    for probability in arguments.probability:
        folder = out / f"{probability:g}"
        if not (folder / "manifest.json").is_file():
            config = VocabularyConfig(words=out / "words.txt", probability=probability, total=0.5,
                                      g2p=arguments.g2p or out / "g2p")
            change_vocabulary(recogniser, folder, config)
        after = {name: _decoded(folder, dev, out / f"{probability:g}_{number}.json")
                 for number, (name, dev) in enumerate(groups.items())}
        lines += [_row(probability, name, dev, set(new), before[name], after[name]) for name, dev in groups.items()]
        lines.append(f"\n{summary(read_json(folder / 'manifest.json')['vocabulary'])}\n" if len(lines) == 3 else "")
    table = "\n".join(line for line in lines if line)
    write_text(out / "table.md", table)
    print(table)
    return 0


def modelled(recogniser: Path) -> set[str]:
    """The words of its language model."""
    lang = Lang(recogniser)
    graph = BackoffGraph.of(FstArrays.read(recogniser / "G.fst"), lang.words, str(recogniser / "G.fst"))
    return {lang.words[label] for label in set(graph.labels.tolist())}


def _some(dev: DevSet, new: set[str], wanted: bool, count: int) -> DevSet:
    """So many utterances, spread evenly, that hold one of the new words (or none)."""
    found: list[DevUtterance] = [item for item in dev.utterances if bool(new.intersection(item.words)) == wanted]
    count = min(count, len(found))
    return dataclasses.replace(dev, utterances=tuple(found[index * len(found) // count] for index in range(count)))


def _lacking(dev: DevSet, known: set[str]) -> list[str]:
    return list(dict.fromkeys(word for item in dev.utterances for word in item.words if word not in known))


def _decoded(recogniser: Path, dev: DevSet, record: Path) -> Measured:
    """What is heard; kept in a file."""
    if not record.is_file():
        write_json(record, dataclasses.asdict(measure(exporter_of("onnx"), Source.open(recogniser), recogniser, dev)))
    kept = read_json(record)
    words = {id: tuple(heard) for id, heard in kept["words"].items()}
    if words.keys() != dev.references.keys():
        raise UserError(f"{record}: of other utterances; give another --out, or remove it")
    return Measured(words, kept["rtf"], kept["peak_bytes"])


def heard(references: Texts, hypotheses: Texts, new: set[str]) -> tuple[int, int, int]:
    """Of the new words: how often they are said, how many of these are heard, and how often one is heard that nobody
    said (in that utterance).
    """
    said = right = false = 0
    for id, reference in references.items():
        spoken = Counter(word for word in reference if word in new)
        found = Counter(word for word in hypotheses[id] if word in new)
        said += spoken.total()
        right += (spoken & found).total()
        false += (found - spoken).total()
    return said, right, false


def _head(groups: Mapping[str, DevSet], new: Sequence[str]) -> str:
    sizes = "; ".join(f"{name}: {len(dev.utterances):,} utterances, {sum(map(len, dev.references.values())):,} words"
                      for name, dev in groups.items())
    return (f"{len(new):,} words added. {sizes}. Intervals: 95 % bootstrap; p: matched pairs.\n\n"
            "| probability | utterances | new words said | heard before | after | heard, not said | WER % before | "
            "after | difference |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")


def _row(probability: float, name: str, dev: DevSet, new: set[str], before: Measured, after: Measured) -> str:
    references = dev.references
    rates = [score(references, each.words) for each in (before, after)]
    paired = compare(references, before.words, after.words)
    said, first, _ = heard(references, before.words, new)
    _, right, false = heard(references, after.words, new)
    columns = [f"{rate.wer:.2f} ({rate.wer_low:.2f} to {rate.wer_high:.2f})" for rate in rates]
    return (f"| {probability:g} | {name} | {said} | {first} | {right} | {false} | {columns[0]} | {columns[1]} | "
            f"{paired.wer_difference:+.2f} ({paired.difference_low:+.2f} to {paired.difference_high:+.2f}, "
            f"p = {paired.p:.2g}) |")


if __name__ == "__main__":
    sys.exit(main())
