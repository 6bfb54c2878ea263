"""Live recognition of real speech: the text that the whole recording gives."""

from __future__ import annotations

import pytest
import soundfile

from asr_distill.export.endpoint import NO_ENDPOINTS
from asr_distill.export.live import FinalText, LiveRecogniser
from asr_distill.export.transcribe import Transcriber


@pytest.mark.slow
def test_streamed_text_is_the_text_of_the_recording(student) -> None:
    """A network on a grid of three frames, with a mean that slides (and is summed in float32 here)."""
    recogniser = LiveRecogniser(student.recogniser, endpoints=NO_ENDPOINTS)
    offline = Transcriber(student.recogniser)
    heard = right = 0
    for path in student.audio(10):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == recogniser.sample_rate
        events = [event for begin in range(0, len(samples), 1234)
                  for event in recogniser.accept(samples[begin:begin + 1234])]
        found = [event for event in (*events, *recogniser.finish()) if isinstance(event, FinalText)]
        wanted = offline.transcribe(path)
        assert [final.text for final in found] == [wanted.text]
        for ours, theirs in zip(found[0].words, wanted.words, strict=True):
            assert ours.word == theirs.word
            assert (ours.start, ours.end) == pytest.approx((theirs.start, theirs.end), abs=0.021)
            assert ours.confidence == pytest.approx(theirs.confidence, abs=0.02)
        heard += len(wanted.words)
        right += len(events) > 0
    assert heard > 20 and right == 10
