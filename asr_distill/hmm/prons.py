"""Which pronunciation of every word was said, and where silence stood (Kaldi's steps/get_prons.sh)."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.tree_stats import context_independent_phones
from asr_distill.lang.lang import SILENCE_PHONE, Lang
from asr_distill.lang.pronprobs import BEGIN_SAID, END_SAID, PronunciationCounts
from asr_distill.lang.silence import Said

log = logging.getLogger("asr_distill")
Choice = tuple[Said, tuple[int, ...], float]  # a pronunciation, its phone ids, its log-probability


def count_pronunciations(alignment: Alignment, store: FrameStore, hmm: HmmModel, lang: Lang) -> PronunciationCounts:
    """Count every gap of the aligned utterances: the pronunciations on both sides, and whether silence is between.

    Where an utterance's phones spell its words in several ways, the likeliest pronunciations are counted. Raises
    UserError where alignment, HMM and language do not belong together.
    """
    if hmm.phones != lang.phones or len(alignment.aligned) != len(store.utterances):
        raise UserError(f"{lang.directory}: alignment, HMM and language directory do not belong together")
    silence = lang.phone_ids[SILENCE_PHONE]
    # Their HMMs may step back: their states do not tell where one instance ends and the next begins.
    merged = context_independent_phones(lang.phones)
    phones, first = phone_instances(alignment, store.offsets, merged)
    choices: dict[str, list[Choice]] = {}
    gaps: Counter[tuple[Said, bool, Said]] = Counter()
    unmatched = []
    for index in np.flatnonzero(alignment.aligned).tolist():
        utterance = store.utterances[index]
        for word in set(utterance.words) - choices.keys():
            choices[word] = _choices(word, lang)
        path = spelled(tuple(phones[first[index] : first[index + 1]].tolist()),
                       [choices[word] for word in utterance.words], silence, merged)
        if path is None:
            unmatched.append(utterance.id)
            continue
        before = BEGIN_SAID
        for paused, said in path:
            gaps[before, paused, said] += 1
            before = said
    aligned = int(alignment.aligned.sum())
    if unmatched:
        if len(unmatched) == aligned:
            raise UserError(f"{lang.directory}: its lexicon spells no aligned utterance; give the language directory "
                            "that the alignment was made with")
        log.warning("pronunciations: the phones of %d of %d utterances do not spell their words: %s",
                    len(unmatched), aligned, " ".join(unmatched[:10]))
    return PronunciationCounts(gaps, aligned - len(unmatched), len(unmatched))


def phone_instances(alignment: Alignment, offsets: np.ndarray, merged: frozenset[int]) -> tuple[np.ndarray, np.ndarray]:
    """Phone ids of all utterances, one a phone instance (N,), and each utterance's first instance (utterances + 1,).

    A new instance begins where the phone changes or its state falls back; frames in a row of one phone in `merged`
    are one instance.
    """
    phone, state = alignment.phone_ids, alignment.states
    falls = (state[1:] < state[:-1]) & ~np.isin(phone[1:], list(merged))
    begins = np.concatenate([[True], (phone[1:] != phone[:-1]) | falls]) if len(phone) else np.zeros(0, bool)
    begins[offsets[:-1][np.diff(offsets) > 0]] = True
    before = np.concatenate([[0], np.cumsum(begins)])  # instances that begin before each frame
    return phone[begins], before[offsets]


def spelled(phones: tuple[int, ...], words: Sequence[list[Choice]], silence: int,
            merged: frozenset[int]) -> list[tuple[bool, Said]] | None:
    """(silence before it, pronunciation) of every word and of the sentence's end; None where no reading fits.

    A search over the words keeps the likeliest reading up to each phone.
    """
    readings: dict[int, tuple[float, tuple | None]] = {0: (0.0, None)}  # phones read: score, (link, silence, said)
    for choices in words:
        longer: dict[int, tuple[float, tuple | None]] = {}
        for at, (score, link) in readings.items():
            for begin, paused in _begins(phones, at, silence):
                for said, ids, weight in choices:
                    for start in (begin, begin - 1) if _shared(phones, begin, ids[0], merged) else (begin,):
                        end = start + len(ids)
                        if phones[start:end] == ids and score + weight > longer.get(end, (-math.inf, None))[0]:
                            longer[end] = (score + weight, (link, paused, said))
        readings = longer
    finals = [(score, (link, paused, END_SAID)) for at, (score, link) in readings.items()
              for end, paused in _begins(phones, at, silence) if end == len(phones)]
    if not finals:
        return None
    path = []
    at_end: tuple | None = max(finals, key=lambda final: final[0])[1]
    while at_end is not None:
        at_end, paused, said = at_end
        path.append((paused, said))
    return path[::-1]


def _begins(phones: tuple[int, ...], at: int, silence: int) -> Iterator[tuple[int, bool]]:
    """Where the next word may begin, and whether silence is passed on the way."""
    yield at, False
    if at < len(phones) and phones[at] == silence:
        yield at + 1, True


def _shared(phones: tuple[int, ...], begin: int, phone: int, merged: frozenset[int]) -> bool:
    """Whether a noise may belong to the instance just read: two in a row are one instance."""
    return phone in merged and begin > 0 and phones[begin - 1] == phone


def _choices(word: str, lang: Lang) -> list[Choice]:
    known = lang.word_or_unknown(word)
    return [((known, p.phones), tuple(lang.phone_ids[phone] for phone in p.phones), math.log(p.probability))
            for p in lang.lexicon.pronunciations(known)]
