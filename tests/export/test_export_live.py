"""Live recognition: the offline text and log-likelihoods, partial texts in time, endpoints."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr_distill.acoustic.network import NetworkConfig, build_network
from asr_distill.decode.online import Partial
from asr_distill.errors import UserError
from asr_distill.export import live
from asr_distill.export.endpoint import NO_ENDPOINTS, EndpointConfig, Rule
from asr_distill.export.live import FinalText, LiveRecogniser, PartialText
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.export.source import Source
from asr_distill.export.transcribe import Transcriber
from asr_distill.features.cmvn import Cmvn, UtteranceFeatures
from asr_distill.features.fbank import Fbank

RATE = 16000


@pytest.fixture(scope="module")
def recogniser(toy) -> LiveRecogniser:
    return LiveRecogniser(toy.directory, endpoints=NO_ENDPOINTS)


def hear(recogniser: LiveRecogniser, samples: np.ndarray, step: int = 800) -> list[PartialText | FinalText]:
    """All events of a stream that comes in steps of so many samples."""
    events: list[PartialText | FinalText] = []
    for begin in range(0, len(samples), step):
        events += recogniser.accept(samples[begin:begin + step])
    return [*events, *recogniser.finish()]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.002, int(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("step", [37, 1600, 100_000])
def test_text_and_times_are_those_of_the_file(toy, recogniser: LiveRecogniser, tmp_path: Path, step: int) -> None:
    offline = Transcriber(toy.directory)
    for index, spoken in enumerate(toy.speech.utterances(4, seed=21)):
        soundfile.write(tmp_path / f"{index}.wav", spoken.samples, RATE, subtype="FLOAT")
        wanted = offline.transcribe(tmp_path / f"{index}.wav")
        *partials, final = hear(recogniser, spoken.samples, step)
        assert isinstance(final, FinalText) and final.text == wanted.text == " ".join(spoken.words)
        for ours, theirs in zip(final.words, wanted.words, strict=True):
            assert ours.word == theirs.word and ours.confidence == pytest.approx(theirs.confidence, abs=0.01)
            assert (ours.start, ours.end) == pytest.approx((theirs.start, theirs.end), abs=0.011)
        assert (final.start, final.cause) == (0.0, "end") and final.end == pytest.approx(wanted.seconds, abs=0.011)
        assert all(isinstance(partial, PartialText) for partial in partials)
        assert partials[-1].text == final.text


@pytest.mark.parametrize("kind", ["global", "online"])
def test_log_likelihoods_are_those_of_the_exported_network(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           kind: str) -> None:
    """Through everything: odd pieces of sound, blocks, the edges, a normalisation that slides."""
    source = Source.open(toy.directory)
    model = dataclasses.replace(source.model, cmvn=Cmvn(kind, source.model.cmvn.train, window=150, prior_frames=40))
    toy.export(tmp_path / "own", model=model)
    heard: list[np.ndarray] = []
    recogniser = LiveRecogniser(tmp_path / "own", endpoints=NO_ENDPOINTS)
    advance = recogniser.search.advance
    monkeypatch.setattr(recogniser.search, "advance", lambda rows: (heard.append(rows), advance(rows)))
    for seed, step in ((31, 333), (32, 5000)):
        heard.clear()
        samples = toy.speech.utterances(1, seed=seed)[0].samples
        hear(recogniser, samples, step)
        frames = Fbank(source.features, torch.device("cpu"))([torch.from_numpy(samples)])[0]
        wanted = OnnxModel(tmp_path / "own").log_likelihoods(UtteranceFeatures(frames)).numpy()
        np.testing.assert_allclose(np.concatenate(heard), wanted, atol=2e-3)


def test_partial_text_comes_soon_after_its_word(toy, recogniser: LiveRecogniser) -> None:
    """A word's text stands where the word is told from all others: here at its end at the latest."""
    for spoken in toy.speech.utterances(3, seed=41):
        partials = hear(recogniser, spoken.samples, 160)[:-1]
        for number, end in enumerate(spoken.ends, 1):
            first = next(event.time for event in partials
                         if event.text.split()[:number] == list(spoken.words[:number]))
            assert first <= end + recogniser.latency.latency_ms / 1000 + 0.03
        assert all(0 < event.time <= len(spoken.samples) / RATE for event in partials)


def test_endpoints_cut_a_stream_and_nothing_is_lost(toy) -> None:
    recogniser = LiveRecogniser(toy.directory)
    utterances = toy.speech.utterances(4, seed=51)
    parts, bounds, length = [], [], 0
    for index, spoken in enumerate(utterances):
        bounds.append((length / RATE, (length + len(spoken.samples)) / RATE))
        parts += [spoken.samples, noise(1.5, index)]
        length += len(parts[-2]) + len(parts[-1])
    finals = [event for event in hear(recogniser, np.concatenate(parts)) if isinstance(event, FinalText)]
    assert [final.text for final in finals] == [" ".join(spoken.words) for spoken in utterances]
    for final, (begin, end), spoken in zip(finals, bounds, utterances, strict=True):
        over = begin + spoken.ends[-1] + 0.5  # the pause that rule 2 waits for, and what is heard in blocks
        assert final.cause == "rule2" and final.start <= begin < end and over - 0.05 < final.end < over + 0.15
        for word, place in zip(final.words, spoken.ends, strict=True):
            assert word.end == pytest.approx(begin + place, abs=0.05)
    assert all(first.end <= second.start for first, second in itertools.pairwise(finals))


def test_an_endless_stream_holds_no_more_than_an_utterance(toy) -> None:
    recogniser = LiveRecogniser(toy.directory, endpoints=EndpointConfig(rule1=Rule(after_words=False, silence=1.0)))
    for minute in range(2):
        for event in recogniser.accept(noise(8.0, minute)):
            assert not isinstance(event, FinalText)  # silence is no utterance
        assert len(recogniser._log_likelihoods) * recogniser.emission.block <= 110
        assert len(recogniser._waiting) < recogniser.emission.frames and recogniser.search.frames <= 110
        assert len(recogniser.fbank._held) < 1000
    assert [*recogniser.finish()] == []


def test_an_utterance_of_twenty_seconds_is_cut(toy) -> None:
    recogniser = LiveRecogniser(toy.directory, endpoints=EndpointConfig(rule2=None), word_times=False)
    samples = np.concatenate([spoken.samples for spoken in toy.speech.utterances(16, seed=61)])
    finals = [event for event in hear(recogniser, samples) if isinstance(event, FinalText)]
    assert len(finals) == 2 and finals[0].cause == "rule5" and finals[0].end == pytest.approx(20.0, abs=0.07)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(RATE, np.float32), noise(0.1), noise(2.0)])
def test_a_stream_without_words_says_nothing(recogniser: LiveRecogniser, samples: np.ndarray) -> None:
    assert hear(recogniser, samples) == []


def test_a_muted_microphone_is_silence(toy) -> None:
    recogniser = LiveRecogniser(toy.directory)
    spoken = toy.speech.utterances(2, seed=71)
    muted = np.zeros(2 * RATE, np.float32)
    events = hear(recogniser, np.concatenate([muted, spoken[0].samples, muted, spoken[1].samples, muted]))
    assert [event.text for event in events if isinstance(event, FinalText)] == [" ".join(one.words) for one in spoken]


def test_latency_is_what_must_be_heard(toy) -> None:
    """The first log-likelihoods come with the sample that completes the last window that they need, not before."""
    recogniser = LiveRecogniser(toy.directory, block_ms=80)
    assert dataclasses.astuple(recogniser.latency) == (80.0, 30.0, 117.5, 0.0)  # the toy looks three frames ahead
    wanted = int(RATE * recogniser.latency.latency_ms / 1000)
    list(recogniser.accept(noise(1.0)[:wanted - 1]))
    assert recogniser.search.frames == 0
    list(recogniser.accept(noise(1.0)[:1]))
    assert recogniser.search.frames == 8


def test_where_the_search_loses_every_path_a_new_utterance_begins(toy, recogniser: LiveRecogniser,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = toy.speech.utterances(1, seed=81)[0]
    half = len(spoken.samples) // 2
    events = list(recogniser.accept(spoken.samples[:half]))
    with monkeypatch.context() as patch:
        patch.setattr(type(recogniser.search), "alive", property(lambda self: False))
        events += recogniser.accept(noise(0.06))
    lost = events[-1]
    assert isinstance(lost, FinalText) and lost.cause == "lost" and lost.words == ()
    assert lost.text == events[-2].text and recogniser.search.frames == 0
    list(recogniser.finish())


@pytest.mark.parametrize("kind", ["speaker", "attention"])
def test_networks_that_hear_everything_first_are_refused(toy, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    source = Source.open(toy.directory)
    if kind == "speaker":
        model = dataclasses.replace(source.model, cmvn=Cmvn("speaker", source.model.cmvn.train))
    else:
        config = NetworkConfig(kind="attention", layers=1, width=32, heads=2, stride=3)
        model = dataclasses.replace(source.model, network=build_network(config, 40, source.hmm.num_pdfs))
    monkeypatch.setattr(live.Source, "open", lambda *_, **__: dataclasses.replace(source, model=model))
    with pytest.raises(UserError, match="cannot be streamed.*CMVN kind 'speaker'" if kind == "speaker" else
                       "cannot be streamed.*kind feed_forward, tdnn or conv_tdnn"):
        LiveRecogniser(toy.directory)


def test_blocks_shorter_than_a_frame_are_refused(toy) -> None:
    with pytest.raises(UserError, match="at least 10 ms"):
        LiveRecogniser(toy.directory, block_ms=4)


def partial(seconds: float, silence: float, final_cost: float = math.inf) -> Partial:
    return Partial((), round(seconds * 100), final_cost, round(silence * 100))


@pytest.mark.parametrize(("said", "rule"), [
    (partial(4.99, 4.99), ""), (partial(5.0, 5.0), "rule1"),  # nothing but silence
    (partial(3, 0.5, 2.0), "rule2"), (partial(3, 0.49, 2.0), ""), (partial(3, 0.5, 2.1), ""),
    (partial(3, 1.0, 8.0), "rule3"), (partial(3, 1.0, 8.1), ""), (partial(3, 2.0), "rule4"), (partial(3, 1.99), ""),
    (partial(19.99, 0.0), ""), (partial(20.0, 0.0), "rule5"), (partial(2, 2, 0.0), "")])
def test_endpoints_are_kaldis_default_rules(said: Partial, rule: str) -> None:
    assert EndpointConfig().fired(said, 0.01) == rule
    assert EndpointConfig.of_pause(0.5) == EndpointConfig()
    assert EndpointConfig.of_pause(0.0).fired(said, 0.01) == ""


@pytest.mark.parametrize("wrong", [{"silence": -1.0}, {"length": math.inf}, {"max_final_cost": math.nan}])
def test_rules_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError):
        Rule(**wrong)
