"""HCLG against brute-force enumeration, and against Kaldi's own chain (H o C o L o G) run through its wheels.

What is compared: the cost of the best path that reads a given pdf sequence and writes a given word sequence.
The brute-force side takes the least sum of language model (with every choice between an n-gram and backing
off), pronunciation, optional silence and HMM transitions. Minimization rounds weights to 1/1024 per arc, hence
the tolerance; summing in the log semiring changes nothing here, as no two paths share all labels and symbols.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from asr_distill.decode.graph import GraphConfig, compile_hclg
from asr_distill.errors import UserError
from asr_distill.hmm.kaldi import context_dependency, topology_text, transition_model
from asr_distill.hmm.model import HmmModel, MonophoneTree
from asr_distill.kaldi import kaldi_decoder, kaldi_hmm_gmm, kaldifst
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.lang import Lang, LangConfig, prepare_lang
from asr_distill.lang.lexicon import Lexicon, Pronunciation

TOLERANCE = 0.02
SCALE = 0.7
ARPA = """
\\data\\
ngram 1=6
ngram 2=6
ngram 3=2

\\1-grams:
-99 <s> -0.051153
-0.823909 </s>
-0.602060 CAB -0.146128
-0.698970 CAP 0.051153
-0.522879 A -0.273001
-1.000000 B

\\2-grams:
-0.397940 <s> CAB -0.221849
-0.698970 <s> A -0.057992
-0.301030 CAB A
-0.698970 A B
-0.397940 A </s>
-1.000000 CAP CAP

\\3-grams:
-0.154902 <s> CAB A
-0.522879 <s> A B

\\end\\
"""
LEXICON = {
    "A": [Pronunciation(("AH",), 1.0), Pronunciation(("EY",), 0.4)],
    "B": [Pronunciation(("B", "AH"))],
    "CAB": [Pronunciation(("K", "AH", "B"))],
    "KAB": [Pronunciation(("K", "AH", "B"), 0.5)],  # a homophone that the language model lacks
    "CAP": [Pronunciation(("K", "AH", "B", "AH"), 0.9), Pronunciation(("K", "AH", "B"), 0.3)],
}
WORDS = ("A", "B", "CAB", "CAP")


@dataclass(frozen=True)
class ContextTree:
    """First states look at the left neighbour, last ones at the right; silence is context independent."""

    kind: ClassVar[str] = "test"
    context_width: ClassVar[int] = 3
    states: tuple[int, ...]
    vowels: frozenset[int]

    @property
    def num_pdfs(self) -> int:
        return 9 * len(self.states)

    def pdf(self, left: int, phone: int, right: int, state: int) -> int:
        group = 0
        if phone > 2:
            neighbour = left if state == 0 else right if state == self.states[phone - 1] - 1 else 0
            group = 1 + (neighbour in self.vowels) if neighbour else 0
        return (phone - 1) * 9 + state * 3 + group

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}


def read_arpa(text: str) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """A reader of its own: natural-log costs of n-grams and backoffs."""
    ngrams, backoffs, order = {}, {}, 0
    for line in text.splitlines():
        if line.endswith("-grams:"):
            order = int(line[1])
        elif order and line and not line.startswith("\\"):
            fields = line.split()
            words = tuple(fields[1:order + 1])
            ngrams[words] = -float(fields[0]) * math.log(10)
            backoffs[words] = -float(fields[order + 1]) * math.log(10) if len(fields) > order + 1 else 0.0
    return ngrams, backoffs


def language_cost(words: tuple[str, ...]) -> float:
    """Least cost over every choice between an n-gram and backing off."""
    ngrams, backoffs = read_arpa(ARPA)

    def best(history: tuple[str, ...], rest: tuple[str, ...]) -> float:
        if not rest:
            return 0.0
        costs = []
        shorter = 0.0
        while True:
            ngram = (*history, rest[0])
            if ngram in ngrams:
                following = ngram[-2:]
                while following not in ngrams:
                    following = following[1:]
                costs.append(shorter + ngrams[ngram] + best(following, rest[1:]))
            if not history:
                return min(costs)
            shorter += backoffs.get(history, 0.0)
            history = history[1:]

    return best(("<s>",), (*words, "</s>"))


def spoken_forms(words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every phone string of a word sequence (pronunciations, optional silences) with its cost."""
    for choice in itertools.product(*(LEXICON[word] for word in words)):
        for silences in itertools.product((False, True), repeat=len(words) + 1):
            phones: list[str] = []
            for silence, p in zip(silences, (Pronunciation(()), *choice), strict=True):
                phones += p.phones
                phones += ["SIL"] if silence else []
            cost = -sum(math.log(p.probability) for p in choice)
            cost -= sum(math.log(0.3 if silence else 0.7) for silence in silences)
            yield tuple(phones), cost


def state_sequence(hmm: HmmModel, phones: tuple[str, ...]) -> list[tuple[int, int, int]]:
    ids = [0, *(hmm.phones.index(p) + 1 for p in phones), 0]
    return [(phone, state, hmm.tree.pdf(left, phone, right, state))
            for left, phone, right in zip(ids, ids[1:], ids[2:], strict=False)
            for state in range(hmm.states[phone - 1])]


def hmm_cost(hmm: HmmModel, states: list[tuple[int, int, int]], frames: list[int]) -> float:
    cost = 0.0
    for key, count in zip(states, frames, strict=True):
        loop = hmm.self_loops[key]
        cost -= SCALE * ((count - 1) * math.log(loop) + math.log(1 - loop))
    return cost


def path_cost(graph: kaldifst.StdVectorFst, pdfs: list[int], word_ids: list[int] | None) -> float:
    """Best path that reads the pdfs and writes the words (any words if None); inf where there is none."""
    reading = kaldifst.compose(kaldifst.make_linear_acceptor([pdf + 1 for pdf in pdfs]), graph)
    if word_ids is not None:
        reading = kaldifst.StdVectorFst(reading)
        kaldifst.arcsort(reading, sort_type="olabel")
        reading = kaldifst.compose(reading, kaldifst.make_linear_acceptor(word_ids))
    best = kaldifst.shortest_path(reading)
    if best.num_states == 0:
        return math.inf
    _, _, _, total = kaldifst.get_linear_symbol_sequence(best)
    return float(total.value)


def make_hmm(lang: Lang, context_width: int) -> HmmModel:
    states = tuple(2 if phone in ("SIL", "AH") else 3 for phone in lang.phones)
    vowels = frozenset(lang.phone_ids[phone] for phone in ("AH", "EY"))
    tree = MonophoneTree(states) if context_width == 1 else ContextTree(states, vowels)
    generator = random.Random(1)
    neighbours = range(len(lang.phones) + 1)
    keys = sorted({(phone, state, tree.pdf(left, phone, right, state))
                   for phone in lang.phone_ids.values() for state in range(states[phone - 1])
                   for left in neighbours for right in neighbours})
    return HmmModel(lang.phones, states, tree, {key: generator.uniform(0.3, 0.9) for key in keys})


@pytest.fixture(scope="module")
def lang(tmp_path_factory: pytest.TempPathFactory) -> Lang:
    folder = tmp_path_factory.mktemp("graph")
    (folder / "lm.arpa").write_text(ARPA)
    return prepare_lang(Lexicon(LEXICON), folder / "lang", LangConfig(silence_probability=0.3), arpa=folder / "lm.arpa")


def kaldi_chain(lang: Lang, hmm: HmmModel) -> kaldifst.StdVectorFst:
    """HCLG as mkgraph.sh makes it, by Kaldi's own code."""
    graph = kaldifst.StdVectorFst(kaldifst.compose(lang.fst("L_disambig"), lang.fst("G")))
    kaldifst.determinize_star(graph, use_log=True)
    width = hmm.tree.context_width
    graph, windows = kaldifst.compose_context(list(lang.disambig), width, width // 2, graph)
    kaldifst.arcsort(graph, sort_type="ilabel")
    context = context_dependency(hmm)
    transitions = transition_model(hmm, context)
    transducer, disambig = kaldi_hmm_gmm.get_h_transducer(windows, context, transitions,
                                                          kaldi_hmm_gmm.HTransducerConfig(transition_scale=1.0))
    kaldifst.arcsort(transducer, sort_type="olabel")
    graph = kaldifst.StdVectorFst(kaldifst.compose(transducer, graph))
    kaldifst.determinize_star(graph, use_log=True)
    arrays = FstArrays.from_fst(graph)
    arrays.ilabels[np.isin(arrays.ilabels, disambig)] = 0
    graph = kaldi_hmm_gmm.add_self_loops(self_loop_scale=SCALE, disambig_syms=[], reorder=True,
                                         trans_model=transitions, ifst=arrays.to_fst())
    arrays = FstArrays.from_fst(graph)
    pdfs = np.array(transitions.id2pdf_id)
    arrays.ilabels = np.where(arrays.ilabels > 0, pdfs[arrays.ilabels] + 1, 0).astype(np.int32)
    return arrays.to_fst()


@pytest.mark.parametrize("context_width", [1, 3])
def test_every_short_sentence_costs_what_enumeration_says(lang: Lang, tmp_path: Path, context_width: int) -> None:
    hmm = make_hmm(lang, context_width)
    figures = compile_hclg(lang, hmm, tmp_path, GraphConfig(self_loop_scale=SCALE))
    graph = kaldifst.StdVectorFst.read(str(tmp_path / "HCLG.fst"))
    kaldifst.arcsort(graph, sort_type="ilabel")
    reference = kaldi_chain(lang, hmm)
    kaldifst.arcsort(reference, sort_type="ilabel")
    assert figures["states"] == graph.num_states and figures["bytes"] == (tmp_path / "HCLG.fst").stat().st_size
    generator = random.Random(2)
    compared = 0
    for length in range(4):
        for words in itertools.product(WORDS, repeat=length):
            forms = list(spoken_forms(words))
            if length == 3:
                forms = generator.sample(forms, min(len(forms), 3))
            for phones, _ in forms:
                states = state_sequence(hmm, phones)
                if not states:
                    continue
                frames = [generator.choice((1, 1, 2, 3)) for _ in states]
                pdfs = [pdf for (_, _, pdf), count in zip(states, frames, strict=True) for _ in range(count)]
                # The same sounds may come from other pronunciations of these words.
                lexical = min(cost for other, cost in spoken_forms(words) if other == phones)
                expected = language_cost(words) + lexical + hmm_cost(hmm, states, frames)
                ids = [lang.word_ids[word] for word in words]
                assert path_cost(graph, pdfs, ids) == pytest.approx(expected, abs=TOLERANCE), (words, phones)
                assert path_cost(reference, pdfs, ids) == pytest.approx(expected, abs=TOLERANCE), (words, phones)
                assert path_cost(graph, pdfs, None) <= expected + TOLERANCE
                compared += 1
    assert compared > 250


@pytest.mark.parametrize("context_width", [1, 3])
def test_graph_accepts_nothing_else(lang: Lang, tmp_path: Path, context_width: int) -> None:
    hmm = make_hmm(lang, context_width)
    compile_hclg(lang, hmm, tmp_path)
    graph = kaldifst.StdVectorFst.read(str(tmp_path / "HCLG.fst"))
    kaldifst.arcsort(graph, sort_type="ilabel")
    for phones in [("K",), ("EY", "B"), ("SIL", "SIL"), ("K", "AH"), ("SPN",), ("AH", "SIL", "SIL")]:
        assert path_cost(graph, [pdf for _, _, pdf in state_sequence(hmm, phones)], None) == math.inf, phones
    states = state_sequence(hmm, ("AH",))
    assert path_cost(graph, [pdf for _, _, pdf in states][:-1], None) == math.inf  # an unfinished phone
    pdfs = [pdf for _, _, pdf in state_sequence(hmm, ("K", "AH", "B"))]
    assert path_cost(graph, pdfs, [lang.word_ids["KAB"]]) == math.inf  # not in the language model


def test_decoder_reads_the_words_of_a_clear_signal(lang: Lang, tmp_path: Path) -> None:
    hmm = make_hmm(lang, 1)
    compile_hclg(lang, hmm, tmp_path)
    graph = kaldifst.StdVectorFst.read(str(tmp_path / "HCLG.fst"))
    phones = ("SIL", "K", "AH", "B", "AH", "SIL", "B", "AH")
    states = state_sequence(hmm, phones)
    scores = np.full((2 * len(states), hmm.num_pdfs), -50.0, np.float32)
    for frame in range(len(scores)):
        scores[frame, states[frame // 2][2]] = 0.0
    decoder = kaldi_decoder.FasterDecoder(graph, kaldi_decoder.FasterDecoderOptions(beam=200.0))
    decoder.decode(kaldi_decoder.DecodableCtc(scores))
    assert decoder.reached_final()
    _, best = decoder.get_best_path()
    _, _, words, _ = kaldifst.get_linear_symbol_sequence(best)
    table = [line.split()[0] for line in (tmp_path / "words.txt").read_text().splitlines()]
    # CAP sounds like CAB A (AH); CAB like one of CAP's pronunciations: the least cost of all decides.
    candidates = {sentence: language_cost(sentence) + cost
                  for length in range(4) for sentence in itertools.product(WORDS, repeat=length)
                  for form, cost in spoken_forms(sentence) if form == phones}
    assert len(candidates) > 1
    assert tuple(table[word] for word in words) == min(candidates, key=candidates.__getitem__)


def test_missing_grammar_and_foreign_phones_are_refused(tmp_path: Path) -> None:
    lang = prepare_lang(Lexicon(LEXICON), tmp_path / "lang")
    with pytest.raises(UserError, match=r"G\.fst: no such file; add a language model"):
        compile_hclg(lang, make_hmm(lang, 1), tmp_path)
    other = HmmModel(("SIL", "X"), (3, 3), MonophoneTree((3, 3)))
    with pytest.raises(UserError, match="phones are not those of the HMM"):
        compile_hclg(lang, other, tmp_path)
    with pytest.raises(ValueError, match="self_loop_scale"):
        GraphConfig(self_loop_scale=-1)


@pytest.mark.parametrize("context_width", [1, 3])
def test_kaldi_classes_agree_with_the_model(lang: Lang, context_width: int) -> None:
    hmm = make_hmm(lang, context_width)
    context = context_dependency(hmm)
    assert context.context_width == context_width
    neighbours = range(len(hmm.phones) + 1)
    for phone, count in enumerate(hmm.states, 1):
        for left, right, state in itertools.product(neighbours, neighbours, range(count)):
            window = [phone] if context_width == 1 else [left, phone, right]
            assert context.compute(window, state) == (True, hmm.tree.pdf(left, phone, right, state))
    transitions = transition_model(hmm, context)
    assert "<ForPhones> 1 3 </ForPhones>" in topology_text(hmm)  # SIL and AH: two states
    entries = [entry.__getstate__() for entry in transitions.tuples]
    assert {entry[:3] for entry in entries} == set(hmm.self_loops)
    for identity in range(1, transitions.num_transition_ids + 1):
        phone, state, pdf, _ = entries[transitions.id2state[identity] - 1]
        loop = hmm.self_loops[phone, state, pdf]
        expected = loop if transitions.is_self_loop(identity) else 1 - loop
        assert transitions.log_probs[identity] == pytest.approx(math.log(expected), abs=1e-5)
