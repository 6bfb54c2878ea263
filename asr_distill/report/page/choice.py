"""Which utterances a page lets people hear: by rule, so that nobody picks the flattering ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

FIXED, SPOILT, WORST, MEDIAN, BEST = "better than the baseline", "worse than the baseline", "worst", "median", "best"
LEAST_WORDS = 3  # one wrong word of two says little

Errors = Mapping[str, int]  # wrong words by utterance


def in_turn(errors: Errors, baseline: Errors | None, words: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """(utterance, kind): kinds take turns, each giving its next utterance that none gave before.

    `errors`: of the student. `words`: of the references, where utterances shorter than LEAST_WORDS come only if all
    are. Worst, best and median go by the word error rate (equals: the longest first); better and worse than the
    baseline by the difference in wrong words, those without any left out.
    """
    ids = [id for id in errors if words[id] >= LEAST_WORDS] or [id for id in errors if words[id]]
    ranked = sorted(ids, key=lambda id: (errors[id] / words[id], -words[id], id))
    middle = (len(ranked) - 1) / 2
    queues: dict[str, list[str]] = {}
    if baseline is not None:
        gain = {id: baseline[id] - errors[id] for id in ids}
        queues[FIXED] = sorted((id for id in ids if gain[id] > 0), key=lambda id: (-gain[id], id))
        queues[SPOILT] = sorted((id for id in ids if gain[id] < 0), key=lambda id: (gain[id], id))
    queues[WORST] = sorted(ids, key=lambda id: (-errors[id] / words[id], -words[id], id))
    queues[MEDIAN] = [ranked[at] for at in sorted(range(len(ranked)), key=lambda at: (abs(at - middle), at))]
    queues[BEST] = ranked
    yield from _round_robin(queues)


def _round_robin(queues: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    given: set[str] = set()
    waiting = {kind: iter(queue) for kind, queue in queues.items()}
    while waiting:
        for kind in list(waiting):
            found = next((id for id in waiting[kind] if id not in given), None)
            if found is None:
                del waiting[kind]
                continue
            given.add(found)
            yield found, kind
