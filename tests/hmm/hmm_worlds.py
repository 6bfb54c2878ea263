"""Made worlds whose phones, states, speakers and noise are known: what the ladder's rungs are tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hmm_toys import toy_lang

from asr_distill.features.cmvn import CmvnStats
from asr_distill.features.store import FrameStore, Utterance, pack_stats, write_store_index
from asr_distill.files import write_array
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.frontend import dct_matrix
from asr_distill.hmm.model import HmmModel, monophone_model
from asr_distill.lang.lang import UNKNOWN_WORD
from asr_distill.lang.lexicon import Pronunciation

WORDS = ("TEA", "EAT", "MET", "TEAM", "ME", "MEAT", "KEY", "KIT", "TICK", "IM", "KIM", "EKE", "TEM", "EMIT",
         "TACT")
SPELLED = ("T IY", "IY T", "M EH T", "T IY M", "M IY", "M IY T", "K IY", "K IH T", "T IH K", "IH M", "K IH M", "IY K",
           "T EH M", "EH M IH T", "T EH K T")
LANG = toy_lang({word: (Pronunciation(tuple(phones.split())),) for word, phones in
                 zip((UNKNOWN_WORD, *WORDS), ("SPN", *SPELLED), strict=True)})
MONO: HmmModel = monophone_model(LANG.phones)
SILENCE, COEFFICIENTS = 1, 40
IDS = {phone: index for index, phone in enumerate(LANG.phones, 1)}

Sound = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # rows (frames, 4) to log-mel (frames, 40)


@dataclass(frozen=True)
class World:
    """A store, the truth of every frame, and how the store's frames sound without speakers' distortions."""

    store: FrameStore
    rows: np.ndarray  # int64 (frames, 4): left, phone, right, state
    plain: np.ndarray  # float64 (frames, 40)

    @property
    def truth(self) -> Alignment:
        """In the pdfs of MONO."""
        pdfs = [MONO.tree.pdf(*row) for row in self.rows.tolist()]
        return Alignment(np.array(pdfs, np.int32), self.rows[:, 1].astype(np.int16), self.rows[:, 3].astype(np.int8),
                         np.ones(len(self.store.utterances), bool), MONO.num_pdfs)


def make_world(directory: Path, sound: Sound, speakers: Sequence[tuple[str, int]] = (("one", 40),), seed: int = 0,
               distort: Callable[[str, np.ndarray], np.ndarray] = lambda speaker, frames: frames) -> World:
    """Utterances of random words by (speaker, utterances); `distort` changes a speaker's frames (n, 40)."""
    random = np.random.default_rng(seed)
    utterances, rows, plain, heard = [], [], [], []
    for speaker, count in speakers:
        for number in range(count):
            words = random.choice(WORDS, random.integers(3, 8)).tolist()
            rows.append(_spoken(words, random))
            plain.append(sound(rows[-1], random))
            heard.append(distort(speaker, plain[-1]).astype(np.float16))
            utterances.append(Utterance(f"{speaker}-{number:02d}", speaker, tuple(words), len(plain[-1]) / 100))
    write_array(directory / "frames.npy", np.concatenate(heard))
    write_store_index(directory, utterances, [len(each) for each in heard],
                      np.stack([pack_stats(CmvnStats.of(each)) for each in heard]), {"config": {}})
    return World(FrameStore(directory), np.concatenate(rows), np.concatenate(plain))


def _spoken(words: Sequence[str], random: np.random.Generator) -> np.ndarray:
    phones = [SILENCE]
    for word in words:
        phones += [IDS[p] for p in LANG.lexicon.pronunciations(word)[0].phones]
        phones += [SILENCE] * int(random.random() < 0.3)
    phones += [SILENCE] * (phones[-1] != SILENCE)
    around = [0, *phones, 0]
    return np.array([(around[at], phone, around[at + 2], state) for at, phone in enumerate(phones)
                     for state in range(3) for _ in range(random.integers(2, 9 if phone == SILENCE else 5))])


def in_cepstra(matrix: np.ndarray, offset: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Log-mel frames (n, 40) whose first cepstra (len(matrix)) are mapped by c -> matrix c + offset."""
    basis = dct_matrix(COEFFICIENTS, len(matrix)).double().numpy()  # (40, cepstra), orthonormal
    cepstra = frames @ basis
    return frames + (cepstra @ matrix.T + offset - cepstra) @ basis.T


def templates(random: np.random.Generator, spread: float = 3.0) -> np.ndarray:
    """Means of every phone's states, (phones + 1, 3, 40); silence has little energy."""
    means = random.normal(0, spread, (len(LANG.phones) + 1, 3, COEFFICIENTS))
    means[SILENCE] = -6.0
    return means


def killed_after(monkeypatch: Any, module: Any, survived: int) -> Callable[[], None]:
    """Training dies when it would keep a state later than iteration `survived`; returns what undoes that."""
    saved = module.save_state

    def dying(directory: Path, digest: str, state: Any) -> None:
        if state.iteration > survived:
            raise KeyboardInterrupt
        saved(directory, digest, state)

    monkeypatch.setattr(module, "save_state", dying)
    return lambda: monkeypatch.setattr(module, "save_state", saved)
