"""The beam search over frames that come bit by bit: what is said so far at any time, and the whole at the end.

It is the search of `Decoder`, step by step: however the frames are cut, words and costs at the end are those of
`Decoder.decode` of all frames at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr_distill.decode.beam_search import COUNT, FRAME, Found, advance, begin, finish, so_far
from asr_distill.decode.decoder import Decoder, Hypothesis, checked
from asr_distill.decode.lattice import Lattice, lattice_of
from asr_distill.decode.tokens import new_workspace

FRAMES_GUESSED = 1000  # of an utterance; its lattice's memory grows beyond that


@dataclass(frozen=True)
class Partial:
    """The best path up to the last frame heard (it need not end in a final state of the graph).

    final_cost: how much worse the best path is that may end here, final cost included (Kaldi's FinalRelativeCost;
    infinite where none may). silence_frames: how many frames of silence the best path ends with.
    """

    words: tuple[str, ...]
    frames: int
    final_cost: float
    silence_frames: int


class OnlineSearch:
    """One utterance at a time over a decoder's graph; `reset` begins the next. Of one thread.

    `silence`: the pdfs of the silence phone (none: silence_frames stay 0). `lattice`: keep what `finish` with a
    lattice needs. Memory grows with the utterance's words (and with its lattice), not with its frames: reset it now
    and then in a stream without end.
    """

    def __init__(self, decoder: Decoder, silence: Sequence[int] = (), *, lattice: bool = False):
        self.decoder = decoder
        self._lattice_beam = decoder.config.lattice_beam if lattice else 0.0
        self._quiet = np.zeros(decoder.num_pdfs if len(silence) else 0, np.bool_)
        self._quiet[[pdf for pdf in silence if pdf < decoder.num_pdfs]] = True  # the graph may know fewer pdfs
        self._work = new_workspace(decoder.graph)
        self.reset()

    def reset(self) -> None:
        """Begin a new utterance."""
        self._seconds = 0.0
        self._found: Found | None = None
        self._going = begin(self.decoder.graph, self._work, FRAMES_GUESSED, self.decoder.config.insertion_penalty,
                            self._lattice_beam)

    @property
    def frames(self) -> int:
        """Heard since the utterance began."""
        return int(self._going.numbers[FRAME])

    @property
    def alive(self) -> bool:
        """Whether a path survives; where none does, more frames change nothing."""
        return bool(self._going.numbers[COUNT])

    def advance(self, log_likelihoods: np.ndarray, id: str = "") -> None:
        """Hear more frames: unscaled, float32 (frames, pdfs), any number of them.

        Raises UserError as Decoder.decode, RuntimeError after `finish`.
        """
        if self._found is not None:
            raise RuntimeError("the utterance is finished: reset() begins a new one")
        if len(log_likelihoods) == 0:
            return
        started = time.thread_time()
        matrix, config = checked(log_likelihoods, self.decoder.num_pdfs, id), self.decoder.config
        self._going = advance(self.decoder.graph, self._work, self._going, matrix, self._quiet, config.acoustic_scale,
                              config.insertion_penalty, config.beam, config.max_active, config.min_active,
                              self._lattice_beam)
        self._seconds += time.thread_time() - started

    def partial(self) -> Partial:
        """What is said so far; changes nothing. Without words where no path survives."""
        if not self.alive:
            return Partial((), self.frames, np.inf, 0)
        best = so_far(self.decoder.graph, self._work, self._going)
        return Partial(self.decoder.named(best.words.tolist()), self.frames, best.final_cost, best.still)

    def finish(self, id: str = "") -> Hypothesis:
        """The whole utterance, as Decoder.decode of all its frames; may be called again."""
        return self.decoder.hypothesis(self._finished() if self.frames else None, self.frames, self._seconds, id)

    def lattice(self) -> Lattice | None:
        """Of the finished utterance, as Decoder.lattice; None where no path survived or there was no frame.

        Raises RuntimeError where this search keeps no lattice.
        """
        if not self._lattice_beam:
            raise RuntimeError("this search keeps no lattice: make it with lattice=True")
        found = self._finished() if self.frames else None
        return lattice_of(found.trellis, self.decoder.config.acoustic_scale) if found and found.alive else None

    def _finished(self) -> Found:
        if self._found is None:
            self._found = finish(self.decoder.graph, self._work, self._going, self._lattice_beam)
        return self._found
