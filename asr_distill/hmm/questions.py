"""Sets of phones that the senone tree asks about: found by clustering (Kaldi's cluster-phones) or given in a file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from asr_distill.errors import UserError, nearest
from asr_distill.files import read_text
from asr_distill.hmm.model import base_phone
from asr_distill.hmm.tree_stats import TreeStats, context_independent_phones, gaussian_log_likelihood
from asr_distill.lang.pieces import WORD_BEGIN, letters_of

_PLACES = {"B": "word begin", "I": "word inside", "E": "word end", "S": "single-phone word"}  # suffix _B, _I ...
_AXES = 3  # principal axes along which a cluster is first cut in two


def read_questions(path: Path, phones: tuple[str, ...]) -> tuple[frozenset[int], ...]:
    """One set a line, phone names between blanks; a base phone (AH) stands for all its variants (AH0_B ...).

    Raises UserError with file and line for an unknown phone, and where the file has no set.
    """
    members: dict[str, set[int]] = {}
    for index, phone in enumerate(phones, 1):
        members.setdefault(base_phone(phone), set()).add(index)
    members.update({phone: {index} for index, phone in enumerate(phones, 1)})
    sets = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        names = line.split()
        for name in names:
            if name not in members:
                raise UserError(f"{path}:{number}: the language has no phone '{name}'{nearest(name, members)}")
        if names:
            sets.append(frozenset[int]().union(*(members[name] for name in names)))
    if not sets:
        raise UserError(f"{path}: no questions (one set of phone names a line)")
    return tuple(dict.fromkeys(sets))


def automatic_questions(stats: TreeStats, phones: tuple[str, ...], states: tuple[int, ...],
                        context_independent: Collection[str], variance_floor: float) -> tuple[frozenset[int], ...]:
    """Nested sets from clustering the base phones, then those of `attribute_sets` (Kaldi's extra_questions).

    Of sentencepiece units, which may hold several sounds, neighbours hear the ends: these are clustered by their first
    and by their last state too.
    """
    sets = cluster_phones(stats, phones, states, variance_floor)
    if letters_of(phones):
        last = tuple(count - 1 for count in states)
        for places in ((0,) * len(states), last):
            sets += cluster_phones(stats, phones, states, variance_floor, places)
    return tuple(dict.fromkeys([*sets, *attribute_sets(phones, context_independent).values()]))


def attribute_sets(phones: tuple[str, ...], context_independent: Collection[str]) -> dict[str, frozenset[int]]:
    """By name: phones of the same stress, phones at the same place in a word, and silence with noises.

    Of sentencepiece units: those that begin a word, and those that begin or end with the same letter.
    """
    found: dict[str, set[int]] = {}
    letters = letters_of(phones) or {}
    for index, phone in enumerate(phones, 1):
        variant = phone[len(base_phone(phone)) :]  # "", "0", "_B" or "0_B"
        if variant[:1].isdigit():
            found.setdefault(f"stress {variant[0]}", set()).add(index)
        if "_" in variant:
            found.setdefault(_PLACES[variant[-1]], set()).add(index)
        if piece := letters.get(phone):
            found.setdefault(f"begins with {piece[0]}", set()).add(index)
            found.setdefault(f"ends with {piece[-1]}", set()).add(index)
            if phone.strip("|").startswith(WORD_BEGIN):
                found.setdefault("word begin", set()).add(index)
    found["silence"] = set(context_independent_phones(phones, context_independent))
    return {name: frozenset(found[name]) for name in sorted(found) if found[name]}


def cluster_phones(stats: TreeStats, phones: tuple[str, ...], states: tuple[int, ...], variance_floor: float,
                   compared: tuple[int, ...] | None = None) -> list[frozenset[int]]:
    """All sets of a binary tree over the base phones, from the whole set down to single base phones.

    Base phones are compared by the Gaussian of one state in all contexts: of `compared`, one a phone, or the central
    one. One that was never seen is in no set.
    """
    places = np.array(states) // 2 if compared is None else np.array(compared)
    variants: dict[str, list[int]] = {}
    for index, phone in enumerate(phones, 1):
        variants.setdefault(base_phone(phone), []).append(index)
    groups = list(variants.values())
    group_of = np.zeros(len(phones) + 1, np.int64)
    for number, group in enumerate(groups):
        group_of[group] = number
    centre = stats.contexts[:, 1]
    central = stats.contexts[:, 3] == places[centre - 1]
    packed = np.zeros((len(groups), stats.packed.shape[1]))
    np.add.at(packed, group_of[centre[central]], stats.packed[central])
    sets, waiting = [], [np.flatnonzero(packed[:, 0] > 0)]
    while waiting:
        cluster = waiting.pop(0)
        sets.append(frozenset(phone for number in cluster for phone in groups[number]))
        if len(cluster) > 1:
            inside = bisect(packed[cluster], variance_floor)
            waiting += [cluster[inside], cluster[~inside]]
    return sets


def bisect(packed: np.ndarray, variance_floor: float) -> np.ndarray:
    """Split points (n, 1 + 2 D), n > 1, into two Gaussians of high likelihood: bool (n,).

    Starts from the best cuts along the principal axes of the means, then moves one point at a time while that
    helps.
    """
    total = packed.sum(0)
    dimension = (packed.shape[1] - 1) // 2
    spread = np.sqrt(np.maximum(total[1 + dimension :] / total[0] - (total[1 : 1 + dimension] / total[0]) ** 2,
                                variance_floor))
    means = (packed[:, 1 : 1 + dimension] / packed[:, :1] - total[1 : 1 + dimension] / total[0]) / spread
    axes = np.linalg.svd(means * np.sqrt(packed[:, :1]), full_matrices=False)[2][:_AXES]
    best, best_score = np.zeros(len(packed), bool), -np.inf
    for axis in axes:
        order = np.argsort(means @ axis, kind="stable")
        below = packed[order].cumsum(0)[:-1]  # (n - 1, 1 + 2 D)
        cut = int(np.argmax(_score(below, total - below, variance_floor)))
        inside = np.zeros(len(packed), bool)
        inside[order[: cut + 1]] = True
        inside, score = _exchange(packed, inside, variance_floor)
        if score > best_score:
            best, best_score = inside, score
    return best


def _exchange(packed: np.ndarray, inside: np.ndarray, variance_floor: float) -> tuple[np.ndarray, float]:
    """Move the point that gains most to the other side until none gains; (sides, log-likelihood)."""
    yes, no = packed[inside].sum(0), packed[~inside].sum(0)
    score = float(_score(yes, no, variance_floor))
    while True:
        step = np.where(inside, -1.0, 1.0)[:, None] * packed  # what the yes side gets
        moved = _score(yes + step, no - step, variance_floor)
        if inside.sum() == 1 or inside.sum() == len(inside) - 1:
            moved[inside if inside.sum() == 1 else ~inside] = -np.inf  # neither side may be empty
        at = int(np.argmax(moved))
        if moved[at] <= score + 1e-9 * abs(score):
            return inside, score
        yes, no, score = yes + step[at], no - step[at], float(moved[at])
        inside = inside ^ (np.arange(len(inside)) == at)


def _score(yes: np.ndarray, no: np.ndarray, variance_floor: float) -> np.ndarray:
    return gaussian_log_likelihood(yes, variance_floor) + gaussian_log_likelihood(no, variance_floor)
