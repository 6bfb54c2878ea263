"""Where an utterance ends in a stream: the five rules of Kaldi's online2/online-endpoint.h, with its defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from asr_distill.decode.online import Partial


@dataclass(frozen=True)
class Rule:
    """Fires where all of it holds. Seconds; costs are of the search (natural-log, scaled).

    after_words: something other than silence was heard (Kaldi's must_contain_nonsilence); silence: how much of it the
    best path ends with at least; max_final_cost: how much worse than the best path the best path is that may end here
    (Kaldi's max_relative_cost; 0 or less: no matter); length: how long the utterance is at least.
    """

    after_words: bool = True
    silence: float = 0.0
    max_final_cost: float = 0.0
    length: float = 0.0

    def __post_init__(self) -> None:
        if not (self.silence >= 0 and self.length >= 0 and math.isfinite(self.silence) and math.isfinite(self.length)):
            raise ValueError(f"silence and length must not be negative, not {self.silence} and {self.length}")
        if math.isnan(self.max_final_cost):
            raise ValueError("max_final_cost must be a number")

    def fires(self, partial: Partial, frame_seconds: float) -> bool:
        length, silence = partial.frames * frame_seconds, partial.silence_frames * frame_seconds
        worse_at_most = self.max_final_cost if self.max_final_cost > 0 else math.inf
        tiny = 1e-6  # frames times seconds are not exact
        return ((partial.silence_frames < partial.frames or not self.after_words)
                and silence + tiny >= self.silence and partial.final_cost <= worse_at_most
                and length + tiny >= self.length)


@dataclass(frozen=True)
class EndpointConfig:
    """An endpoint where any rule fires; a rule that is null never does.

    1: 5 s of silence, words or none; 2 to 4: after words a pause, shorter where the sentence may well end here;
    5: an utterance of 20 s, wherever it is.
    """

    rule1: Rule | None = Rule(after_words=False, silence=5.0)
    rule2: Rule | None = Rule(silence=0.5, max_final_cost=2.0)
    rule3: Rule | None = Rule(silence=1.0, max_final_cost=8.0)
    rule4: Rule | None = Rule(silence=2.0)
    rule5: Rule | None = Rule(after_words=False, length=20.0)

    @staticmethod
    def of_pause(seconds: float) -> EndpointConfig:
        """The rules for a pause of so long (Kaldi's: 0.5) where the sentence may be over; 0: no endpoints at all."""
        if seconds == 0:
            return NO_ENDPOINTS
        return EndpointConfig(rule2=Rule(silence=seconds, max_final_cost=2.0),
                              rule3=Rule(silence=seconds + 0.5, max_final_cost=8.0),
                              rule4=Rule(silence=seconds + 1.5))

    def fired(self, partial: Partial, frame_seconds: float) -> str:
        """The name of the first rule that fires; empty where none does."""
        for field in fields(self):
            rule = getattr(self, field.name)
            if rule is not None and rule.fires(partial, frame_seconds):
                return field.name
        return ""


NO_ENDPOINTS = EndpointConfig(None, None, None, None, None)
