"""A model's tree for people: questions by phone names, leaves by pdf-id, a summary, and who reaches a pdf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from asr_distill.errors import UserError, nearest
from asr_distill.hmm.decision_tree import LEFT, PHONE, RIGHT, DecisionTree
from asr_distill.hmm.model import HmmModel, base_phone
from asr_distill.hmm.questions import attribute_sets
from asr_distill.hmm.tree_stats import CONTEXT_INDEPENDENT

_PLACES = {LEFT: "left", PHONE: "phone", RIGHT: "right"}
_SPELLED = 6  # names up to which a set is spelled out beside the question
_MOST_ASKED = 10


class PhoneNames:
    """Names of phone sets: variants of one base phone are written as the base phone where all are in the set."""

    def __init__(self, phones: tuple[str, ...]):
        self.phones = phones
        self.variants: dict[str, list[int]] = {}
        for index, phone in enumerate(phones, 1):
            self.variants.setdefault(base_phone(phone), []).append(index)
        self._attributes = {ids: name for name, ids in attribute_sets(phones, CONTEXT_INDEPENDENT).items()}

    def ids(self, name: str) -> list[int]:
        """Of a phone, or of all variants of a base phone. Raises UserError where there is neither."""
        if name in self.phones:
            return [self.phones.index(name) + 1]
        if name not in self.variants:
            raise UserError(f"the model has no phone '{name}'{nearest(name, [*self.variants, *self.phones])}")
        return self.variants[name]

    def spell(self, ids: Collection[int]) -> list[str]:
        """Shortest list of names; 0 is the edge of the utterance."""
        names = ["edge"] if 0 in ids else []
        for base, variants in self.variants.items():
            inside = [index for index in variants if index in ids]
            names += [base] if len(inside) == len(variants) else [self.phones[index - 1] for index in inside]
        return names

    def attribute(self, ids: frozenset[int]) -> str | None:
        """`stress 1`, `word end`, `silence`: where the set is just that."""
        return self._attributes.get(ids)

    def side(self, ids: frozenset[int]) -> str:
        """Which phones may stand at a place: the shorter of the two ways to say it."""
        everything = frozenset(range(len(self.phones) + 1))
        if ids >= everything - {0}:
            return "any" if 0 in ids else "any but edge"
        inside, outside = self.spell(ids), self.spell(everything - ids)
        return " ".join(inside) if len(inside) <= len(outside) + 1 else "any but " + " ".join(outside)


def tree_text(hmm: HmmModel, phone: str | None = None, state: int | None = None) -> str:
    """The trees of one phone, or of all and a summary, each of one state or of all.

    A variant such as AH0_B shows its own way through the tree that AH's variants share.
    Raises UserError where the model has no such phone or state.
    """
    names = PhoneNames(hmm.phones)
    chosen = range(1, len(hmm.phones) + 1) if phone is None else names.ids(phone)
    if state is not None and not 0 <= state < max(hmm.states[index - 1] for index in chosen):
        raise UserError(f"--state {state}: states are numbered from 0 to "
                        f"{max(hmm.states[index - 1] for index in chosen) - 1}")
    if not isinstance(hmm.tree, DecisionTree):
        return _plain_text(hmm, names, chosen)
    lines: list[str] = []
    numbered: dict[int, int] = {}  # set -> the number by which the text calls it
    done: set[tuple[str, int, int]] = set()
    for index in chosen:
        for at, root in enumerate(hmm.tree.roots[index - 1]):
            shared = [p for p, roots in enumerate(hmm.tree.roots, 1) if at < len(roots) and roots[at] == root]
            only = index if phone == hmm.phones[index - 1] and len(shared) > 1 else 0
            title = hmm.phones[index - 1] if only else " ".join(names.spell(shared))
            if (state is None or at == state) and (title, at, root) not in done:
                done.add((title, at, root))
                lines += [f"{title}, state {at}: {_plural(len(set(_leaves(hmm.tree, root))), 'pdf')}",
                          *_branch(hmm.tree, names, numbered, root, only, "  "), ""]
    if numbered:
        lines.append("Sets of phones")
        lines += [f"  set {number}: {' '.join(names.spell(hmm.tree.sets[at]))}" for at, number in numbered.items()]
        lines.append("")
    return "\n".join([*lines, *(_summary(hmm.tree, names) if phone is None else [])]).rstrip("\n")


def pdf_text(hmm: HmmModel, pdf: int) -> str:
    """Which phones, states and neighbours reach a pdf: one line for each way. Raises UserError: no such pdf."""
    if not 0 <= pdf < hmm.num_pdfs:
        raise UserError(f"--pdf {pdf}: the model's pdfs are numbered from 0 to {hmm.num_pdfs - 1}")
    names, lines = PhoneNames(hmm.phones), [f"pdf {pdf}"]
    if not isinstance(hmm.tree, DecisionTree):
        return "\n".join([*lines, *(
            f"  {phone}, state {state}: any neighbours" for index, phone in enumerate(hmm.phones, 1)
            for state in range(hmm.states[index - 1]) if hmm.tree.pdf(0, index, 0, state) == pdf)])
    everything = frozenset(range(len(hmm.phones) + 1))
    users: dict[tuple[int, int], list[int]] = {}  # (root, state) -> phones
    for index, roots in enumerate(hmm.tree.roots, 1):
        for state, root in enumerate(roots):
            users.setdefault((root, state), []).append(index)
    for (root, state), phones in users.items():
        for left, phone, right in _ways(hmm.tree, root, pdf, (everything, frozenset(phones), everything)):
            lines.append(f"  {' '.join(names.spell(phone))}, state {state}: left {names.side(left)}; "
                         f"right {names.side(right)}")
    return "\n".join(lines)


def _branch(tree: DecisionTree, names: PhoneNames, numbered: dict[int, int], at: int, only: int,
            indent: str) -> list[str]:
    """A node and all below it; `only`: the phone for which questions about the phone itself are answered (0: none)."""
    while only and at >= 0 and tree.nodes[at][0] == PHONE:
        at = tree.nodes[at][2 if only in tree.sets[tree.nodes[at][1]] else 3]
    if at < 0:
        return [f"{indent}pdf {-1 - at}"]
    place, asked, yes, no = tree.nodes[at]
    lines = [f"{indent}{_PLACES[place]} in {_set_name(tree, names, numbered, asked)}?"]
    for answer, reference in (("yes", yes), ("no", no)):
        below = _branch(tree, names, numbered, reference, only, indent + "  ")
        lines += [f"{indent}{answer + ':':<5}{below[0].strip()}", *below[1:]]
    return lines


def _set_name(tree: DecisionTree, names: PhoneNames, numbered: dict[int, int], asked: int) -> str:
    attribute = names.attribute(tree.sets[asked])
    if attribute:
        return attribute
    spelled = names.spell(tree.sets[asked])
    if len(spelled) <= _SPELLED:
        return f"{{{' '.join(spelled)}}}"
    return f"set {numbered.setdefault(asked, len(numbered) + 1)} ({spelled[0]} ... {len(spelled)} names)"


def _summary(tree: DecisionTree, names: PhoneNames) -> list[str]:
    lines = [f"{tree.num_pdfs} pdfs, {len(tree.nodes)} questions asked, {len(tree.sets)} sets of phones",
             "Pdfs of each root (states 0, 1 ...)"]
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, roots in enumerate(tree.roots, 1):
        groups.setdefault(roots, []).append(index)
    rows = [(" ".join(names.spell(phones)), [len(set(_leaves(tree, root))) for root in roots])
            for roots, phones in groups.items()]
    width = max(len(name) for name, _ in rows)
    lines += [f"  {name:<{width}}{''.join(f'{count:5d}' for count in counts)}" for name, counts in rows]
    places = Counter(_PLACES[place] for place, *_ in tree.nodes)
    if places:
        lines.append("Asked about: " + ", ".join(f"{place} {count}" for place, count in places.most_common()))
        lines.append("Most asked")
        for (place, asked), count in Counter(node[:2] for node in tree.nodes).most_common(_MOST_ASKED):
            name = names.attribute(tree.sets[asked]) or f"{{{' '.join(names.spell(tree.sets[asked]))}}}"
            lines.append(f"  {count:4d}  {_PLACES[place]} in {name}")
    return lines


def _plain_text(hmm: HmmModel, names: PhoneNames, chosen: Collection[int]) -> str:
    """A tree that asks nothing about neighbours: phones that share their pdfs, one line each."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, states in enumerate(hmm.states, 1):
        pdfs = tuple(hmm.tree.pdf(0, index, 0, state) for state in range(states))
        groups.setdefault(pdfs, []).append(index)
    lines = [f"{' '.join(names.spell(phones))}: pdfs {' '.join(map(str, pdfs))}" for pdfs, phones in groups.items()
             if set(phones) & set(chosen)]
    return "\n".join([*lines, "", f"{hmm.num_pdfs} pdfs of monophones: no questions about neighbours"])


def _leaves(tree: DecisionTree, at: int) -> Iterator[int]:
    if at < 0:
        yield -1 - at
    else:
        for reference in tree.nodes[at][2:]:
            yield from _leaves(tree, reference)


def _ways(tree: DecisionTree, at: int, pdf: int,
          allowed: tuple[frozenset[int], ...]) -> Iterator[tuple[frozenset[int], ...]]:
    """Phones that may stand at (left, phone, right), for each leaf with this pdf."""
    if not all(allowed):
        return  # answers that contradict each other
    if at < 0:
        if -1 - at == pdf:
            yield allowed
        return
    place, asked, yes, no = tree.nodes[at]
    for reference, phones in ((yes, allowed[place] & tree.sets[asked]), (no, allowed[place] - tree.sets[asked])):
        yield from _ways(tree, reference, pdf, (*allowed[:place], phones, *allowed[place + 1 :]))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
