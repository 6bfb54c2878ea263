"""HmmModel in Kaldi's own classes: topology, context dependency (tree) and transition model.

For Kaldi's graph and training tools, and for exports that carry a Kaldi model. Binary tree form: Kaldi's
event-map.cc (TE = table, CE = constant) and context-dep.cc.
"""

from __future__ import annotations

import struct

from asr_distill.hmm.model import HmmModel
from asr_distill.kaldi import kaldi_hmm_gmm

_PDF_CLASS = -1  # Kaldi's event key for the HMM state; keys 0 .. width - 1 are phones of the window
_NONE = b"NULL "


def topology_text(hmm: HmmModel) -> str:
    """Kaldi's <Topology>: left-to-right states with a self-loop, one group of phones per number of states."""
    groups: dict[int, list[int]] = {}
    for phone, states in enumerate(hmm.states, 1):
        groups.setdefault(states, []).append(phone)
    parts = ["<Topology>"]
    for states, phones in groups.items():
        parts.append(f"<TopologyEntry> <ForPhones> {' '.join(map(str, phones))} </ForPhones>")
        parts.extend(f"<State> {s} <PdfClass> {s} <Transition> {s} 0.75 <Transition> {s + 1} 0.25 </State>"
                     for s in range(states))
        parts.append(f"<State> {states} </State> </TopologyEntry>")
    parts.append("</Topology> ")
    return " ".join(parts)


def context_dependency(hmm: HmmModel) -> kaldi_hmm_gmm.ContextDependency:
    """The tree as Kaldi's ContextDependency.

    ContextDependency has no constructor in Python: the binary form goes in through `__setstate__`.
    """
    width = hmm.tree.context_width
    body = b"".join([b"ContextDependency ", _int(width), _int(width // 2), b"ToPdf ", _event_map(hmm),
                     b"EndContextDependency "])
    context = kaldi_hmm_gmm.ContextDependency.__new__(kaldi_hmm_gmm.ContextDependency)
    context.__setstate__(([byte - 256 if byte > 127 else byte for byte in body],))
    return context


def transition_model(hmm: HmmModel, context: kaldi_hmm_gmm.ContextDependency) -> kaldi_hmm_gmm.TransitionModel:
    """Kaldi's TransitionModel with the self-loop probabilities of `hmm`."""
    topology = kaldi_hmm_gmm.HmmTopology()
    topology.read(topology_text(hmm))
    fresh = kaldi_hmm_gmm.TransitionModel(context, topology)
    tuples, topology, first_ids, states, pdfs, num_pdfs, log_probs, stay_away = fresh.__getstate__()
    for index, entry in enumerate(tuples, 1):  # transition states are numbered from 1
        phone, state, pdf, _ = entry.__getstate__()
        stay, forward = hmm.log_transitions(phone, state, pdf)
        for identity in range(first_ids[index], first_ids[index + 1]):
            log_probs[identity] = stay if fresh.is_self_loop(identity) else forward
        stay_away[index] = forward
    model = kaldi_hmm_gmm.TransitionModel.__new__(kaldi_hmm_gmm.TransitionModel)  # __setstate__ constructs it
    model.__setstate__((tuples, topology, first_ids, states, pdfs, num_pdfs, log_probs, stay_away))
    return model


def _event_map(hmm: HmmModel) -> bytes:
    """Nested tables: phone, then HMM state, then (triphones) left and right neighbour."""
    central = hmm.tree.context_width // 2
    phones = [_NONE]
    phones += [_table(_PDF_CLASS, [_leaves(hmm, phone, state) for state in range(count)])
               for phone, count in enumerate(hmm.states, 1)]
    return _table(central, phones)


def _leaves(hmm: HmmModel, phone: int, state: int) -> bytes:
    if hmm.tree.context_width == 1:
        return _leaf(hmm.tree.pdf(0, phone, 0, state))
    neighbours = range(len(hmm.phones) + 1)  # 0: none
    return _table(0, [_table(2, [_leaf(hmm.tree.pdf(left, phone, right, state)) for right in neighbours])
                      for left in neighbours])


def _table(key: int, children: list[bytes]) -> bytes:
    if len(children) > 1 and len(set(children)) == 1:
        return children[0]  # the question changes nothing
    return b"".join([b"TE ", _int(key), b"\xfc", struct.pack("<I", len(children)), b"( ", *children, b") "])


def _leaf(pdf: int) -> bytes:
    return b"CE " + _int(pdf)


def _int(value: int) -> bytes:
    return b"\x04" + struct.pack("<i", value)
