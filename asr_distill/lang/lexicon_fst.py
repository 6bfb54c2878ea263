"""L: phones in, words out, with optional silence (Kaldi's make_lexicon_fst.py and add_lex_disambig.pl)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from asr_distill.kaldi import kaldifst
from asr_distill.lang.lexicon import SILENCE_PHONE, Lexicon
from asr_distill.lang.silence import SilenceModel

Entry = tuple[str, tuple[str, ...], float]  # word, phones (perhaps with #k at the end), cost


def entries_of(lexicon: Lexicon) -> list[Entry]:
    """Every pronunciation with its cost, the negated natural log of its probability."""
    return [(word, p.phones, -math.log(p.probability)) for word, pronunciations in lexicon for p in pronunciations]


def disambiguated(entries: list[Entry]) -> tuple[list[Entry], int]:
    """Append #1, #2 ... where a pronunciation is shared by several words or begins another one.

    Returns the entries and the highest number used.
    """
    spoken = Counter(phones for _, phones, _ in entries)
    prefixes = {phones[:length] for phones in spoken for length in range(1, len(phones))}
    used: Counter[tuple[str, ...]] = Counter()
    result = []
    for word, phones, cost in entries:
        if spoken[phones] > 1 or phones in prefixes:
            used[phones] += 1
            phones = (*phones, f"#{used[phones]}")
        result.append((word, phones, cost))
    return result, max(used.values(), default=0)


def lexicon_fst(entries: list[Entry], phones: Mapping[str, int], words: Mapping[str, int], *,
                silence: SilenceModel, silence_disambig: str | None = None) -> kaldifst.StdVectorFst:
    """L over phone and word ids; silence may stand at the start and after every word.

    Where a word's weight depends on silence before it, words begin in two states: after silence and after none
    (Kaldi's make_lexicon_fst_silprob.pl). With `silence_disambig` (L_disambig) that symbol follows each optional
    silence and #0 loops where words begin, so that the backoff arcs of G pass through.
    """
    fst = kaldifst.StdVectorFst()
    start, loop, pause = fst.add_state(), fst.add_state(), fst.add_state()
    rested = fst.add_state() if silence.by_word else loop  # words begin here after silence
    fst.start = start
    fst.set_final(loop, -math.log(silence.end.factor_none))
    fst.set_final(rested, -math.log(silence.end.factor_silence))

    def arc(source: int, phone: int, word: int, cost: float, target: int) -> None:
        fst.add_arc(source, kaldifst.StdArc(phone, word, cost, target))

    def exits(probability: float) -> list[tuple[int, float]]:
        if probability <= 0:
            return [(loop, 0.0)]
        return [(loop, -math.log1p(-probability)), (pause, -math.log(probability))]

    for target, cost in exits(silence.begin):
        arc(start, 0, 0, cost, target)
    after_silence = rested
    if silence_disambig is not None:
        after_silence = fst.add_state()
        arc(after_silence, phones[silence_disambig], 0, 0.0, rested)
        for state in {loop, rested}:
            arc(state, phones["#0"], words["#0"], 0.0, state)
    arc(pause, phones[SILENCE_PHONE], 0, 0.0, after_silence)
    for word, symbols, cost in entries:
        around = silence.around(word, symbols[:-1] if symbols[-1].startswith("#") else symbols)
        sources = [(loop, cost - math.log(around.factor_none))]
        if silence.by_word:
            sources.append((rested, cost - math.log(around.factor_silence)))
        label = words[word]
        *inside, last = (phones[symbol] for symbol in symbols)
        for phone in inside:
            target = fst.add_state()
            for source, weight in sources:
                arc(source, phone, label, weight, target)
            sources, label = [(target, 0.0)], 0
        for source, weight in sources:
            for target, exit_cost in exits(around.after):
                arc(source, last, label, weight + exit_cost, target)
    kaldifst.connect(fst)
    kaldifst.arcsort(fst, sort_type="olabel")
    return fst
