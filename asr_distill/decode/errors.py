"""A readable listing of what a system got wrong: aligned utterances, confusions, speakers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import kaldialign

from asr_distill.decode.decoder import Hypothesis
from asr_distill.decode.score import Texts, error_counts, texts_of, word_counts
from asr_distill.decode.transcripts import check_same_utterances

NOTHING = "***"  # as sctk writes the missing side of an insertion or deletion
SHOWN = 30  # lines of each table

Pairs = list[tuple[str, str]]


def error_listing(references: Texts, hypotheses: Texts | Iterable[Hypothesis], *,
                  speakers: Mapping[str, str] | None = None) -> str:
    """Tables of confusions, deletions, insertions and (where given) speakers; then every utterance with an error, the
    worst first, as REF / HYP / EVAL lines (S, I, D under the wrong words). Raises UserError where the two sides
    have other utterances.
    """
    hypotheses = texts_of(hypotheses)
    check_same_utterances(references, hypotheses)
    aligned = {id: align_pairs(reference, hypotheses[id]) for id, reference in references.items()}
    edits = Counter(pair for pairs in aligned.values() for pair in pairs if pair[0] != pair[1])
    parts = [
        _table("Confusions (reference -> hypothesis)",
               {f"{a} -> {b}": count for (a, b), count in edits.items() if NOTHING not in (a, b)}),
        _table("Deleted words", {a: count for (a, b), count in edits.items() if b == NOTHING}),
        _table("Inserted words", {b: count for (a, b), count in edits.items() if a == NOTHING}),
    ]
    if speakers:
        parts.append(_speaker_table(references, hypotheses, speakers))
    parts.append(_utterances(references, aligned))
    return "\n\n".join(parts) + "\n"


def align_pairs(reference: Sequence[str], hypothesis: Sequence[str]) -> Pairs:
    """Least-cost alignment as (reference word, hypothesis word), `***` for nothing."""
    pairs = kaldialign.align(list(reference), list(hypothesis), "")  # no word is empty
    return [(a or NOTHING, b or NOTHING) for a, b in pairs]


def aligned_lines(pairs: Pairs) -> tuple[str, str, str]:
    """REF, HYP and EVAL lines, word under word."""
    widths = [max(len(a), len(b)) for a, b in pairs]
    marks = ["" if a == b else "I" if a == NOTHING else "D" if b == NOTHING else "S" for a, b in pairs]
    columns = ([a for a, _ in pairs], [b for _, b in pairs], marks)
    ref, hyp, marked = (" ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)).rstrip()
                        for words in columns)
    return f"REF:  {ref}".rstrip(), f"HYP:  {hyp}".rstrip(), f"EVAL: {marked}".rstrip()


def _table(title: str, counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    return "\n".join([f"{title}: {total} in all, {len(counts)} kinds", *(f"{n:6d}  {what}" for what, n in ranked)])


def _speaker_table(references: Texts, hypotheses: Texts, speakers: Mapping[str, str]) -> str:
    errors: Counter[str] = Counter()
    words: Counter[str] = Counter()
    counts = error_counts(references, hypotheses).sum(1)
    for id, wrong, spoken in zip(references, counts, word_counts(references), strict=True):
        speaker = speakers.get(id, "?")
        errors[speaker] += int(wrong)
        words[speaker] += int(spoken)
    rates = {speaker: 100 * errors[speaker] / max(words[speaker], 1) for speaker in words}
    ranked = sorted(rates, key=lambda speaker: (-rates[speaker], speaker))
    return "\n".join(["Speakers, the worst first: word error rate, errors, words",
                      *(f"{rates[s]:6.2f}  {errors[s]:6d}  {words[s]:7d}  {s}" for s in ranked)])


def _utterances(references: Texts, aligned: Mapping[str, Pairs]) -> str:
    wrong = {id: sum(a != b for a, b in pairs) for id, pairs in aligned.items()}
    ranked = sorted((id for id in aligned if wrong[id]),
                    key=lambda id: (-wrong[id] / max(len(references[id]), 1), id))
    lines = [f"Utterances with errors: {len(ranked)} of {len(aligned)}, the worst first"]
    for id in ranked:
        lines += ["", f"{id}  ({wrong[id]} errors, {len(references[id])} words)", *aligned_lines(aligned[id])]
    return "\n".join(lines)
