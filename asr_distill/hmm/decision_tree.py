"""The senone tree: which pdf models a phone's state between its neighbours (Young, Odell, Woodland 1994)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

LEFT, PHONE, RIGHT = 0, 1, 2  # what a question asks about


@dataclass(frozen=True)
class DecisionTree:
    """Binary trees of questions "is the phone at this place in this set?", one tree per root and state.

    A reference to a node is its index in `nodes`; to a leaf it is -1 - pdf-id. Nodes that several roots share
    occur once. A neighbour of 0 (the edge of an utterance) is in no set.
    """

    kind: ClassVar[str] = "decision"
    sets: tuple[frozenset[int], ...]  # of phone ids
    nodes: tuple[tuple[int, int, int, int], ...]  # place (LEFT, PHONE, RIGHT), set, reference if yes, if no
    roots: tuple[tuple[int, ...], ...]  # per phone and emitting state, a reference
    num_pdfs: int = field(init=False, compare=False)
    _questions: tuple[tuple[int, frozenset[int], int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        references = [*(r for states in self.roots for r in states), *(r for node in self.nodes for r in node[2:])]
        pdfs = {-1 - reference for reference in references if reference < 0}
        if pdfs != set(range(len(pdfs))):
            raise ValueError("the leaves of a decision tree must be numbered from 0 without a gap")
        for index, (place, phones, yes, no) in enumerate(self.nodes):
            # References go up only: no walk is endless.
            if place not in (LEFT, PHONE, RIGHT) or not 0 <= phones < len(self.sets) or any(
                    0 <= reference <= index or reference >= len(self.nodes) for reference in (yes, no)):
                raise ValueError(f"node {index} of the decision tree is not valid")
        if any(reference >= len(self.nodes) for states in self.roots for reference in states):
            raise ValueError("a root of the decision tree names a node that is not there")
        object.__setattr__(self, "num_pdfs", len(pdfs))
        object.__setattr__(self, "_questions", tuple(
            (place, self.sets[phones], yes, no) for place, phones, yes, no in self.nodes))

    @property
    def context_width(self) -> int:
        return 3

    def pdf(self, left: int, phone: int, right: int, state: int) -> int:
        """The pdf-id; about a microsecond."""
        questions, context = self._questions, (left, phone, right)
        at = self.roots[phone - 1][state]
        while at >= 0:
            place, phones, yes, no = questions[at]
            at = yes if context[place] in phones else no
        return -1 - at

    def to_dict(self) -> dict[str, Any]:
        # One string a list: hmm.json is indented, and a number a line would make it ten times longer.
        return {"kind": self.kind, "sets": [_join(sorted(phones)) for phones in self.sets],
                "nodes": [_join(node) for node in self.nodes], "roots": [_join(states) for states in self.roots]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DecisionTree:
        """Raises ValueError or KeyError where the data is not what `to_dict` gives."""
        nodes = [_numbers(node) for node in data["nodes"]]
        if any(len(node) != 4 for node in nodes):
            raise ValueError("a node of a decision tree has four numbers")
        return cls(tuple(frozenset(_numbers(phones)) for phones in data["sets"]),
                   tuple((node[0], node[1], node[2], node[3]) for node in nodes),
                   tuple(_numbers(states) for states in data["roots"]))


def _join(numbers: tuple[int, ...] | list[int]) -> str:
    return " ".join(map(str, numbers))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))
