"""The LibriSpeech-layout reader: real data, and every fault that a corpus on disk can have."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_distill.corpus.audio import check_audio
from asr_distill.corpus.librispeech import prepare, read_utterance_ids
from asr_distill.corpus.manifest import corpus_figures, load_split
from asr_distill.errors import UserError

SUBSETS = {"train": "train-mini"}
CHAPTER = "train-mini/10/20"
FIRST = f"{CHAPTER}/10-20-0000"


def samples(seed: int, count: int = 8000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, count).astype(np.int16)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two speakers, two utterances each, half a second long."""
    root = tmp_path / "corpus"
    for speaker, chapter in ((10, 20), (11, 21)):
        folder = root / "train-mini" / str(speaker) / str(chapter)
        folder.mkdir(parents=True)
        ids = [f"{speaker}-{chapter}-{number:04d}" for number in range(2)]
        for seed, utterance in enumerate(ids):
            soundfile.write(folder / f"{utterance}.flac", samples(seed), 16000)
        lines = (f"{utterance} IT'S {word} DAY\n" for utterance, word in zip(ids, ("A", "ONE"), strict=True))
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    return root


def edit_line(root: Path, line: str) -> None:
    """Replace the first transcript line of chapter 20."""
    path = root / CHAPTER / "10-20.trans.txt"
    path.write_text(line + "\n" + path.read_text().split("\n", 1)[1])


def fails(root: Path, out: Path) -> list[str]:
    """The lines of the error that prepare raises; nothing may have been written."""
    with pytest.raises(UserError) as caught:
        prepare(root, SUBSETS, out)
    assert not out.exists()
    return str(caught.value).split("\n")


def test_manifest_holds_what_is_on_disk(corpus: Path, tmp_path: Path) -> None:
    figures = prepare(corpus, SUBSETS, tmp_path / "out")
    assert figures == {"train": {"hours": round(4 * 0.5 / 3600, 4), "utterances": 4, "words": 12, "speakers": 2}}
    cuts = load_split(tmp_path / "out", "train", corpus)
    assert [cut.id for cut in cuts] == ["10-20-0000", "10-20-0001", "11-21-0000", "11-21-0001"]
    cut = cuts[1]
    assert (cut.supervisions[0].text, cut.supervisions[0].speaker) == ("IT'S ONE DAY", "10")
    assert cut.id == cut.recording.id == cut.supervisions[0].id
    np.testing.assert_array_equal(cut.load_audio()[0], samples(1).astype(np.float32) / 32768)
    assert json.loads((tmp_path / "out/train/rejected.json").read_text()) == []


def test_manifest_is_relative_to_the_root_and_the_same_twice(corpus: Path, tmp_path: Path) -> None:
    prepare(corpus, SUBSETS, tmp_path / "one")
    moved = corpus.rename(tmp_path / "moved")
    prepare(moved, SUBSETS, tmp_path / "two", workers=2)
    name = "train/cuts.jsonl.gz"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    source = load_split(tmp_path / "one", "train", moved)[0].recording.sources[0].source
    assert Path(source) == moved / f"{FIRST}.flac"


def test_wav_is_read_like_flac(corpus: Path, tmp_path: Path) -> None:
    (corpus / f"{FIRST}.flac").unlink()
    soundfile.write(corpus / f"{FIRST}.wav", samples(0), 16000)
    prepare(corpus, SUBSETS, tmp_path / "out")
    assert load_split(tmp_path / "out", "train", corpus)[0].recording.num_samples == 8000


def test_hidden_files_are_not_audio(corpus: Path, tmp_path: Path) -> None:
    (corpus / CHAPTER / "._10-20-0000.flac").write_bytes(b"left by a file manager")
    assert prepare(corpus, SUBSETS, tmp_path / "out")["train"]["utterances"] == 4


def test_real_slice(librispeech: Path, tmp_path: Path) -> None:
    figures = prepare(librispeech, {"train": "train-clean-5", "dev": "dev-clean-2"}, tmp_path)
    assert figures["train"]["utterances"] == 336 and figures["train"]["speakers"] == 28
    assert figures["dev"]["utterances"] == 156 and figures["dev"]["speakers"] == 26
    # Independent of the reader: lines and words of the transcripts, seconds by soundfile's header.
    for split, subset in (("train", "train-clean-5"), ("dev", "dev-clean-2")):
        texts = [line for path in (librispeech / subset).rglob("*.trans.txt") for line in path.read_text().splitlines()]
        assert figures[split]["words"] == sum(len(line.split()) - 1 for line in texts)
        seconds = sum(soundfile.info(path).duration for path in (librispeech / subset).rglob("*.flac"))
        assert figures[split]["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
        assert corpus_figures(load_split(tmp_path, split, librispeech)) == figures[split]


def rewrite(seed: int = 0, rate: int = 16000, channels: int = 1, count: int = 8000) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        soundfile.write(path, np.repeat(samples(seed, count)[:, None], channels, axis=1), rate)
    return change


def cut_to(part: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:int(path.stat().st_size * part)])


def patch(where: int, value: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[where:where + len(value)] = value
        path.write_bytes(data)
    return change


def without_frames(path: Path) -> None:
    """A valid FLAC of no samples: its metadata blocks alone, length 0."""
    data, end, last = bytearray(path.read_bytes()), 4, False
    while not last:
        last = bool(data[end] & 0x80)
        end += 4 + int.from_bytes(data[end + 1:end + 4], "big")
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data[:end])


@pytest.mark.parametrize(("change", "message"), [
    (Path.unlink, "audio missing"),
    (cut_to(0.6), "decoding stopped after 0 of 8000 samples"),
    (cut_to(0.001), "truncated or damaged"),
    (lambda path: path.write_bytes(b""), "empty file (0 bytes)"),
    (lambda path: path.write_bytes(b"this is no audio " * 99), "truncated or damaged"),
    (without_frames, "no audio samples"),
    (rewrite(rate=8000), "sample rate 8000 Hz, expected 16000 Hz"),
    (rewrite(channels=2), "2 channels, expected 1"),
    (patch(26, b"\x01" * 16), "the samples do not have the MD5"),
    (lambda path: rewrite()(path.with_suffix(".wav")), "duplicate id 10-20-0000"),
    (lambda path: rewrite()(path.with_stem("10-20-0009")), "no line '10-20-0009 ...'"),
    (lambda path: rewrite()(path.with_stem("99-20-0009")), "name does not begin with '10-20-'"),
], ids=["missing", "truncated", "header cut", "0 bytes", "not audio", "no samples", "rate", "stereo", "md5", "twice",
        "no transcript", "wrong chapter"])
def test_audio_faults(corpus: Path, tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    change(corpus / f"{FIRST}.flac")
    lines = fails(corpus, tmp_path / "out")
    assert len(lines) == 2 and "1 problem in the corpus" in lines[0], lines
    assert lines[1].strip().startswith(f"{CHAPTER}/") and message in lines[1]


def test_long_truncated_flac_tells_where_it_broke(corpus: Path) -> None:
    path = corpus / f"{FIRST}.flac"
    soundfile.write(path, samples(3, 600_000), 16000)
    cut_to(0.9)(path)
    problem = check_audio(path, 16000).problem
    assert problem and "of 600000 samples" in problem


@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_truncated_wav_is_found_though_libsndfile_shortens_it(corpus: Path, keep: float) -> None:
    path = corpus / f"{FIRST}.wav"
    soundfile.write(path, samples(3), 16000)
    assert check_audio(path, 16000).num_samples == 8000
    cut_to(keep)(path)
    problem = check_audio(path, 16000).problem
    assert problem and "the header promises 8000 samples" in problem


def test_wav_without_samples(corpus: Path) -> None:
    path = corpus / f"{FIRST}.wav"
    soundfile.write(path, samples(3, 0), 16000)
    problem = check_audio(path, 16000).problem
    assert problem and "no audio samples" in problem


def test_flac_from_a_pipe_has_no_length(corpus: Path) -> None:
    path = corpus / f"{FIRST}.flac"
    patch(21, bytes([path.read_bytes()[21] & 0xF0]) + bytes(4))(path)
    problem = check_audio(path, 16000).problem
    assert problem and "a FLAC header without length; encode it again" in problem


def test_wav_from_a_pipe_has_no_length(corpus: Path) -> None:
    path = corpus / f"{FIRST}.wav"
    soundfile.write(path, samples(3), 16000)
    patch(40, struct.pack("<I", 0xFFFFFFFF))(path)
    assert check_audio(path, 16000).num_samples == 8000


def test_24_bit_flac_is_accepted(corpus: Path) -> None:
    path = corpus / f"{FIRST}.flac"
    soundfile.write(path, samples(3), 16000, subtype="PCM_24")
    assert check_audio(path, 16000).num_samples == 8000


@pytest.mark.parametrize(("line", "message"), [
    ("10-20-0000", ":1: empty transcript of 10-20-0000"),
    ("10-20-0000   ", ":1: empty transcript of 10-20-0000"),
    ("10-20-0000 it's a day", ":1: text of 10-20-0000 is not upper case ('it's a day')"),
    ("10-20-0001 TWO LINES\n10-20-0000 A", ":3: duplicate id 10-20-0001"),
    ("10-20-0000 A\nIT'S A DAY", ":2: malformed line 'IT'S A DAY'; expected '10-20-NNNN WORDS'"),
    ("10-20-0000 A\n 10-20-0005 B", ":2: malformed line '10-20-0005 B'"),
    ("10-20-0000 A\n10-20-0007 B", "10-20-0007.flac: audio missing (transcript in 10-20.trans.txt)"),
    ("", "10-20-0000.flac: no line '10-20-0000 ...' in 10-20.trans.txt"),
])
def test_transcript_faults(corpus: Path, tmp_path: Path, line: str, message: str) -> None:
    edit_line(corpus, line)
    lines = fails(corpus, tmp_path / "out")
    assert len(lines) == 2 and message in lines[1], lines


def test_transcript_file_missing_misnamed_or_not_text(corpus: Path, tmp_path: Path) -> None:
    path = corpus / CHAPTER / "10-20.trans.txt"
    other = path.rename(path.with_name("10-21.trans.txt"))
    assert "missing for 2 audio files; the folder has 10-21.trans.txt" in fails(corpus, tmp_path / "o")[1]
    other.unlink()
    assert "missing for 2 audio files; unpack" in fails(corpus, tmp_path / "o")[1]
    path.write_bytes(b"10-20-0000 CAF\xc9\n")
    assert "not UTF-8" in fails(corpus, tmp_path / "o")[1]


def test_missing_root_and_subset_name_what_exists(corpus: Path, tmp_path: Path) -> None:
    (corpus / "dev-mini").mkdir()
    with pytest.raises(UserError, match=r"did you mean 'train-mini'\?.*holds dev-mini, train-mini"):
        prepare(corpus, {"train": "train-mni"}, tmp_path / "out")
    with pytest.raises(UserError, match="holds no <speaker>/<chapter> folders"):
        prepare(corpus, {"dev": "dev-mini"}, tmp_path / "out")
    with pytest.raises(UserError, match="no such folder; give the corpus root"):
        prepare(tmp_path / "nowhere", SUBSETS, tmp_path / "out")


def test_all_problems_are_listed_up_to_twenty(corpus: Path, tmp_path: Path) -> None:
    edit_line(corpus, "10-20-0000 lower")
    (corpus / f"{CHAPTER}/10-20-0001.flac").write_bytes(b"")
    (corpus / "train-mini/11/21/11-21-0000.flac").unlink()
    lines = fails(corpus, tmp_path / "out")
    assert len(lines) == 4 and "3 problems" in lines[0]
    for number in range(30):
        rewrite()(corpus / f"{CHAPTER}/10-20-1{number:03d}.flac")
    lines = fails(corpus, tmp_path / "out")
    assert len(lines) == 22 and "33 problems" in lines[0] and lines[-1].strip() == "... and 13 more"


def test_skip_leaves_out_logs_and_writes_rejected(corpus: Path, tmp_path: Path,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    edit_line(corpus, "10-20-0000 lower")
    (corpus / "train-mini/11/21/11-21-0000.flac").write_bytes(b"")
    figures = prepare(corpus, SUBSETS, tmp_path, on_error="skip")
    assert figures["train"]["utterances"] == 2
    assert [cut.id for cut in load_split(tmp_path, "train", corpus)] == ["10-20-0001", "11-21-0001"]
    rejected = json.loads((tmp_path / "train/rejected.json").read_text())
    assert [entry["utterance"] for entry in rejected] == ["10-20-0000", "11-21-0000"]
    assert all(entry["problem"] in caplog.text for entry in rejected)


def test_skip_with_nothing_left_stops(corpus: Path, tmp_path: Path) -> None:
    for path in corpus.rglob("*.flac"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"split 'train': no utterance is left \(4 problems"):
        prepare(corpus, SUBSETS, tmp_path, on_error="skip")


def test_wanted_utterances_only(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("11-21-0001\n10-20-0001\n")
    (corpus / f"{FIRST}.flac").write_bytes(b"")  # not wanted, so no matter
    wanted = read_utterance_ids(tmp_path / "ids")
    assert prepare(corpus, SUBSETS, tmp_path, utterance_ids={"train": wanted})["train"]["utterances"] == 2
    with pytest.raises(UserError, match=r"2 of the 4 wanted utterances are not there \(10-20-0007, x\)"):
        prepare(corpus, SUBSETS, tmp_path, utterance_ids={"train": wanted | {"x", "10-20-0007"}})
    (tmp_path / "ids").write_text("\n")
    with pytest.raises(UserError, match="holds no utterance ids"):
        read_utterance_ids(tmp_path / "ids")


def test_lengths_out_of_range_are_left_out(corpus: Path, tmp_path: Path) -> None:
    rewrite(count=16001)(corpus / f"{FIRST}.flac")
    assert prepare(corpus, SUBSETS, tmp_path, max_seconds=1.0)["train"]["utterances"] == 3
    assert "lasts 1.00 s, outside 0 to 1 s" in (tmp_path / "train/rejected.json").read_text()
    with pytest.raises(UserError, match="no utterance is left"):
        prepare(corpus, SUBSETS, tmp_path, min_seconds=9.0)


def test_one_utterance_in_two_splits_is_warned_of(corpus: Path, tmp_path: Path,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    one = {"dev": frozenset(["10-20-0000"])}
    prepare(corpus, SUBSETS | {"dev": "train-mini"}, tmp_path, utterance_ids=one)
    assert "splits 'train' and 'dev' share 1 utterances" in caplog.text


@pytest.mark.parametrize("settings", [{"on_error": "ignore"}, {"min_seconds": 3.0, "max_seconds": 2.0}])
def test_settings_out_of_range(corpus: Path, tmp_path: Path, settings: dict) -> None:
    with pytest.raises(ValueError, match=r"on_error|min_seconds"):
        prepare(corpus, SUBSETS, tmp_path, **settings)


def test_load_split_says_what_is_wrong(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no such manifest; run the stage"):
        load_split(out, "train", corpus)
    prepare(corpus, SUBSETS, out)
    with pytest.raises(UserError, match="is not the corpus root"):
        load_split(out, "train", tmp_path)
    path = out / "train/cuts.jsonl.gz"
    cut_to(0.5)(path)
    with pytest.raises(UserError, match="damaged manifest"):
        load_split(out, "train", corpus)
