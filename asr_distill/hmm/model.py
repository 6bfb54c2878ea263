"""HMM topology, the tree that maps phones' states to pdf-ids, and transition probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from asr_distill.errors import UserError
from asr_distill.files import read_json, write_json
from asr_distill.hmm.decision_tree import DecisionTree
from asr_distill.lang.pieces import letters_of

DEFAULT_STATES = 3
DEFAULT_SELF_LOOP = 0.75  # Kaldi's topo of gen_topo.pl


class Tree(Protocol):
    """Which pdf models a phone's state in its context (phone ids as in Lang.phones; 0 = no neighbour)."""

    kind: ClassVar[str]

    @property
    def context_width(self) -> int:
        """1 (monophones) or 3 (triphones)."""

    @property
    def num_pdfs(self) -> int:
        """How many pdfs."""

    def pdf(self, left: int, phone: int, right: int, state: int) -> int:
        """The pdf-id of an emitting state (0-based) of `phone` between its neighbours."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data that the class's `from_dict` reads back."""


@dataclass(frozen=True)
class MonophoneTree:
    """One pdf per state of each phone; phones of one group share theirs (as sets.txt in Kaldi's gmm-init-mono)."""

    kind: ClassVar[str] = "monophone"
    states: tuple[int, ...]  # emitting states per phone
    groups: tuple[int, ...] = ()  # per phone, the id of the phone whose pdfs it uses; empty: its own
    first: tuple[int, ...] = field(init=False, repr=False, compare=False)  # first pdf of each phone

    def __post_init__(self) -> None:
        groups = self.groups or tuple(range(1, len(self.states) + 1))
        if len(groups) != len(self.states):
            raise ValueError("groups must name one phone id for every phone")
        own: dict[int, int] = {}
        count = 0
        for phone, group in enumerate(groups, 1):
            if group == phone:
                own[phone] = count
                count += self.states[phone - 1]
        for phone, group in enumerate(groups, 1):
            if group not in own or self.states[group - 1] != self.states[phone - 1]:
                raise ValueError(f"phone {phone} cannot share the pdfs of phone {group}")
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "first", tuple(own[group] for group in groups))

    @property
    def context_width(self) -> int:
        return 1

    @property
    def num_pdfs(self) -> int:
        return sum(n for phone, (n, group) in enumerate(zip(self.states, self.groups, strict=True), 1)
                   if group == phone)

    def pdf(self, left: int, phone: int, right: int, state: int) -> int:
        return self.first[phone - 1] + state

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "states": list(self.states), "groups": list(self.groups)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MonophoneTree:
        return cls(tuple(data["states"]), tuple(data["groups"]))


# A new kind of tree is registered here (its module imports nothing of this one).
TREES: dict[str, Any] = {MonophoneTree.kind: MonophoneTree, DecisionTree.kind: DecisionTree}
_VARIANT = re.compile(r"(.+?)[012]?(?:_[BIES])?")


def base_phone(phone: str) -> str:
    """Without position in the word and stress: AH of AH0_B."""
    match = _VARIANT.fullmatch(phone)
    return match[1] if match else phone


def stress_groups(phones: tuple[str, ...]) -> tuple[int, ...]:
    """Groups in which AH0_B, AH1_I and AH2 share their pdfs, as in Kaldi's LibriSpeech recipes."""
    first: dict[str, int] = {}
    return tuple(first.setdefault(base_phone(phone), index) for index, phone in enumerate(phones, 1))


@dataclass(frozen=True)
class HmmModel:
    """Left-to-right phone HMMs: every emitting state has a self-loop and one way forward."""

    phones: tuple[str, ...]  # id = index + 1; SIL first
    states: tuple[int, ...]  # emitting states per phone
    tree: Tree
    self_loops: Mapping[tuple[int, int, int], float] = field(default_factory=dict)  # (phone, state, pdf)

    @property
    def num_pdfs(self) -> int:
        return self.tree.num_pdfs

    def self_loop(self, phone: int, state: int, pdf: int) -> float:
        """Probability of staying in the state; the rest goes forward."""
        return self.self_loops.get((phone, state, pdf), DEFAULT_SELF_LOOP)

    def log_transitions(self, phone: int, state: int, pdf: int) -> tuple[float, float]:
        """Natural logs of (self-loop, forward) probability."""
        stay = self.self_loop(phone, state, pdf)
        return math.log(stay), math.log1p(-stay)

    def save(self, directory: Path) -> None:
        """Write hmm.json."""
        write_json(directory / "hmm.json", {
            "phones": list(self.phones), "states": list(self.states), "num_pdfs": self.num_pdfs,
            "tree": self.tree.to_dict(),
            "self_loops": [[*key, value] for key, value in sorted(self.self_loops.items())],
        })

    @classmethod
    def load(cls, directory: Path) -> HmmModel:
        """Raises UserError where hmm.json is missing or not of this form."""
        path = directory / "hmm.json"
        data = read_json(path)
        try:
            tree = TREES[data["tree"]["kind"]].from_dict(data["tree"])
            loops = {(int(p), int(s), int(pdf)): float(value) for p, s, pdf, value in data["self_loops"]}
            return cls(tuple(data["phones"]), tuple(data["states"]), tree, loops)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not an HMM model of this program ({error!r}); make it again") from None


def monophone_model(phones: tuple[str, ...], *, states: int = DEFAULT_STATES, letter_states: int = 0,
                    share_stress: bool = False) -> HmmModel:
    """The model that flat start begins with. A sentencepiece unit has `letter_states` more for each further letter."""
    letters = letters_of(phones) or {}
    per_phone = tuple(states + letter_states * max(0, len(letters.get(phone, "")) - 1) for phone in phones)
    groups = stress_groups(phones) if share_stress else ()
    return HmmModel(phones, per_phone, MonophoneTree(per_phone, groups))
