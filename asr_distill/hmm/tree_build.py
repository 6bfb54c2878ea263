"""Builds the senone tree from statistics (Kaldi's build-tree): greedy splits, then merging of like leaves."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.hmm.decision_tree import LEFT, PHONE, RIGHT, DecisionTree
from asr_distill.hmm.model import base_phone
from asr_distill.hmm.questions import automatic_questions, read_questions
from asr_distill.hmm.tree_stats import (
    CONTEXT_INDEPENDENT,
    TreeStats,
    context_independent_phones,
    gaussian_log_likelihood,
)


@dataclass(frozen=True)
class TreeConfig:
    """Kaldi's build-tree in numbers. Leaves are counted before merging, as --max-leaves is."""

    leaves: int = 2000  # a root without a split is a leaf too, so there are never fewer than roots
    variance_floor: float = 0.01
    min_count: float = 20.0  # frames each side of a split
    split_threshold: float = 300.0  # log-likelihood that a split must gain
    cluster_threshold: float | None = None  # log-likelihood that a merge may lose; None: the smallest split's gain
    questions: Path | None = None  # a file of phone sets in place of the automatic ones
    share_roots: bool = True  # one root per base phone: stress and place in the word are questions
    context_independent: tuple[str, ...] = CONTEXT_INDEPENDENT  # base phones that are not split

    def __post_init__(self) -> None:
        if self.leaves < 1:
            raise ValueError("leaves must be at least 1")
        if self.variance_floor <= 0:
            raise ValueError("variance_floor must be positive")
        if min(self.min_count, self.split_threshold, self.cluster_threshold or 0) < 0:
            raise ValueError("min_count, split_threshold and cluster_threshold must not be negative")


@dataclass(frozen=True)
class Split:
    """A question and what it gains."""

    gain: float
    place: int  # LEFT, PHONE or RIGHT
    question: int
    yes: np.ndarray  # bool (rows,)


@dataclass
class _Node:
    rows: np.ndarray  # contexts that reach it
    split: Split | None
    children: tuple[_Node, _Node] | None = None  # yes, no; None: a leaf
    pdf: int = -1


@dataclass(frozen=True)
class _Root:
    phones: tuple[int, ...]
    state: int
    node: _Node
    leaves: list[_Node] = field(default_factory=list)


class Splitter:
    """Finds the best question for any set of contexts."""

    def __init__(self, stats: TreeStats, sets: tuple[frozenset[int], ...], num_phones: int, config: TreeConfig):
        self.contexts, self.packed, self.config = stats.contexts, stats.packed, config
        self.member = np.zeros((len(sets), num_phones + 1), bool)
        for number, phones in enumerate(sets):
            self.member[number, list(phones)] = True

    def best(self, rows: np.ndarray) -> Split | None:
        """The question of highest gain with enough frames on both sides; None where there is none."""
        if len(rows) < 2:
            return None
        packed = self.packed[rows]
        total = packed.sum(0)
        before = gaussian_log_likelihood(total, self.config.variance_floor)
        best: tuple[float, int, int] | None = None
        for place in (PHONE, LEFT, RIGHT):
            phones = self.contexts[rows, place]
            order = np.argsort(phones, kind="stable")
            present, starts = np.unique(phones[order], return_index=True)
            if len(present) < 2:
                continue
            pooled = np.add.reduceat(packed[order], starts, 0)  # (present, 1 + 2 D)
            member = self.member[:, present]
            asked = np.flatnonzero(member.any(1) & ~member.all(1))
            yes = member[asked].astype(np.float64) @ pooled  # (questions, 1 + 2 D)
            no = total - yes
            enough = np.minimum(yes[:, 0], no[:, 0]) >= max(self.config.min_count, 1.0)
            asked, yes, no = asked[enough], yes[enough], no[enough]
            if not len(asked):
                continue
            gains = (gaussian_log_likelihood(yes, self.config.variance_floor)
                     + gaussian_log_likelihood(no, self.config.variance_floor) - before)
            at = int(np.argmax(gains))
            if gains[at] > max(self.config.split_threshold, 0.0) and (best is None or gains[at] > best[0]):
                best = float(gains[at]), place, int(asked[at])
        if best is None:
            return None
        gain, place, question = best
        return Split(gain, place, question, self.member[question, self.contexts[rows, place]])


def build_tree(stats: TreeStats, phones: tuple[str, ...], states: tuple[int, ...],
               config: TreeConfig) -> tuple[DecisionTree, dict[str, Any]]:
    """Build the tree for an HMM's phones (ids = index + 1) with this many emitting states each.

    Every state of every base phone (of every phone without `share_roots`) is a root. Figures: leaves, roots,
    splits, merges, smallest_gain (of a split), contexts (seen), frames, questions (sets),
    log_likelihood_per_frame (single Gaussians at the leaves), gain_per_frame (over the roots alone), unseen
    (phone and state of pdfs without a frame), seconds.
    Raises UserError where the questions' file is wrong, ValueError where there are no statistics.
    """
    started = time.monotonic()
    if not len(stats.counts):
        raise ValueError("no statistics to build a tree from")
    sets = (automatic_questions(stats, phones, states, config.context_independent, config.variance_floor)
            if config.questions is None else read_questions(config.questions, phones))
    splitter = Splitter(stats, sets, len(phones), config)
    roots = _roots(splitter, phones, states, config)
    before = _likelihood(splitter, [root.node for root in roots])
    gains = _grow([root.node for root in roots], splitter, config.leaves)
    threshold = config.cluster_threshold
    if threshold is None:
        threshold = min(gains, default=0.0)
    pdfs: list[np.ndarray] = []  # rows of each pdf
    merges = 0
    for root in roots:
        _collect(root.node, root.leaves)
        merged, owner = merge_leaves(np.stack([splitter.packed[leaf.rows].sum(0) for leaf in root.leaves]),
                                     threshold, config.variance_floor)
        for leaf, own in zip(root.leaves, owner, strict=True):
            leaf.pdf = len(pdfs) + own
        pdfs += [np.concatenate([leaf.rows for leaf, own in zip(root.leaves, owner, strict=True) if own == number])
                 for number in range(merged)]
        merges += len(root.leaves) - merged
    frames = float(stats.counts.sum())
    after = float(sum(gaussian_log_likelihood(splitter.packed[rows].sum(0), config.variance_floor) for rows in pdfs))
    figures = {
        "leaves": len(pdfs), "roots": len(roots), "splits": len(gains), "merges": merges,
        "smallest_gain": min(gains, default=0.0), "contexts": len(stats.counts), "frames": frames,
        "questions": len(sets), "log_likelihood_per_frame": after / frames,
        "gain_per_frame": (after - before) / frames,
        "unseen": [f"{phones[root.phones[0] - 1]} {root.state}" for root in roots if not len(root.node.rows)],
        "seconds": time.monotonic() - started}
    return _compile(roots, sets, len(phones)), figures


def merge_leaves(packed: np.ndarray, threshold: float, variance_floor: float) -> tuple[int, list[int]]:
    """Merge the two clusters that lose least while they lose less than `threshold` (Kaldi's ClusterBottomUp).

    packed: statistics of the leaves (n, 1 + 2 D). Returns how many clusters are left, and each leaf's (numbered
    by their first leaves). Leaves without frames stay alone.
    """
    count = len(packed)
    owner = np.arange(count)
    clusters = packed.copy()
    alone = gaussian_log_likelihood(clusters, variance_floor)
    loss = np.full((count, count), np.inf)  # above the diagonal

    def refresh(at: int) -> None:
        joint = gaussian_log_likelihood(clusters + clusters[at], variance_floor)
        losses = np.where((clusters[:, 0] > 0) & (clusters[at, 0] > 0), alone + alone[at] - joint, np.inf)
        loss[:at, at], loss[at, at + 1 :] = losses[:at], losses[at + 1 :]

    for at in range(count):
        refresh(at)
    while count > 1:
        first, second = divmod(int(np.argmin(loss)), len(packed))
        if not loss[first, second] < threshold:
            break
        clusters[first] += clusters[second]
        clusters[second] = 0.0
        alone[first] = gaussian_log_likelihood(clusters[first], variance_floor)
        alone[second] = 0.0
        owner[owner == second] = first
        refresh(first)
        refresh(second)
        count -= 1
    names, numbers = np.unique(owner, return_inverse=True)
    return len(names), numbers.ravel().tolist()


def _roots(splitter: Splitter, phones: tuple[str, ...], states: tuple[int, ...], config: TreeConfig) -> list[_Root]:
    """One for every state of every group of phones; those of silence cannot be split."""
    silence = context_independent_phones(phones, config.context_independent)
    groups: dict[str, list[int]] = {}
    for index, phone in enumerate(phones, 1):
        shared = config.share_roots or index in silence
        groups.setdefault(base_phone(phone) if shared else phone, []).append(index)
    roots = []
    for group in groups.values():
        mine = np.isin(splitter.contexts[:, 1], group)
        for state in range(max(states[phone - 1] for phone in group)):
            rows = np.flatnonzero(mine & (splitter.contexts[:, 3] == state))
            split = None if group[0] in silence else splitter.best(rows)
            roots.append(_Root(tuple(p for p in group if states[p - 1] > state), state, _Node(rows, split)))
    return roots


def _grow(nodes: list[_Node], splitter: Splitter, leaves: int) -> list[float]:
    """Split the leaf of highest gain until there are `leaves`; the gains in order."""
    queue = [(-node.split.gain, number, node) for number, node in enumerate(nodes) if node.split]
    heapq.heapify(queue)
    gains: list[float] = []
    while queue and len(nodes) + len(gains) < leaves:
        _, _, node = heapq.heappop(queue)
        assert node.split is not None
        gains.append(node.split.gain)
        yes, no = node.rows[node.split.yes], node.rows[~node.split.yes]
        node.children = _Node(yes, splitter.best(yes)), _Node(no, splitter.best(no))
        for side, child in enumerate(node.children):
            if child.split:
                heapq.heappush(queue, (-child.split.gain, len(nodes) + 2 * len(gains) + side, child))
    return gains


def _collect(node: _Node, leaves: list[_Node]) -> None:
    if node.children is None:
        leaves.append(node)
    else:
        for child in node.children:
            _collect(child, leaves)


def _likelihood(splitter: Splitter, nodes: list[_Node]) -> float:
    return float(sum(gaussian_log_likelihood(splitter.packed[node.rows].sum(0), splitter.config.variance_floor)
                     for node in nodes))


def _compile(roots: list[_Root], sets: tuple[frozenset[int], ...], num_phones: int) -> DecisionTree:
    used: dict[int, int] = {}  # question -> its number in the tree
    nodes: list[tuple[int, int, int, int]] = []

    def reference(node: _Node) -> int:
        if node.children is None or node.split is None:
            return -1 - node.pdf
        at = len(nodes)
        nodes.append((0, 0, 0, 0))  # children come after their parent
        yes, no = (reference(child) for child in node.children)
        if yes == no < 0:  # both sides were merged into one pdf
            del nodes[at:]
            return yes
        nodes[at] = (node.split.place, used.setdefault(node.split.question, len(used)), yes, no)
        return at

    of_phone: list[list[int]] = [[] for _ in range(num_phones)]
    for root in roots:
        top = reference(root.node)
        for phone in root.phones:
            of_phone[phone - 1].append(top)
    return DecisionTree(tuple(sets[question] for question in used), tuple(nodes), tuple(map(tuple, of_phone)))
