"""Transcribe sound files with this directory: python transcribe.py FILE.wav ...   (pip install sherpa-onnx)

16-bit wav, any rate; with `pip install soundfile` also flac, ogg, mp3. Every file of the directory is compared with
manifest.json first. --json: a JSON object a line; --batch N: so many files at once.
"""

import argparse
import json
import sys
import time
import wave
from pathlib import Path

import numpy as np
import sherpa_onnx

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # the directory stays as it was exported
try:
    from export_files import checked_manifest, peak_bytes
except ImportError:
    sys.exit(f"error: {HERE / 'export_files.py'}: missing; copy the whole directory again")

LONGEST_SECONDS = 30


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batch", type=int, default=1, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    facts = checked_manifest()["facts"]
    recognizer = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
        tokens=str(HERE / "tokens.txt"), model=str(HERE / "model.onnx"), ctc_graph=str(HERE / "HCLG.fst"),
        ctc_max_active=facts["max_active"], sample_rate=facts["sample_rate"], feature_dim=facts["feature_dim"],
        num_threads=arguments.threads)
    for told in transcripts(recognizer, arguments.files, arguments.batch, facts["tail_seconds"]):
        if arguments.json:
            print(json.dumps({**told, "peak_bytes": peak_bytes()}, ensure_ascii=False), flush=True)
        else:
            print(f"{told['file']}\t{told['text']}" if len(arguments.files) > 1 else told["text"], flush=True)


def transcripts(recognizer, files, batch, tail_seconds):
    """{"file", "text", "seconds", "cpu_seconds"} of one file after the other; `batch` pieces are decoded at a time."""
    open_files, waiting = [], []
    for file in files:
        told = {"file": file, "text": "", "seconds": 0.0, "cpu_seconds": 0.0}
        open_files.append(told)
        for samples, rate in pieces(file):
            told["seconds"] = round(told["seconds"] + len(samples) / rate, 3)
            waiting.append((told, samples, rate))
            if len(waiting) == batch:
                decode(recognizer, waiting, tail_seconds)
                waiting = []
        if not waiting:
            yield from open_files
            open_files = []
    decode(recognizer, waiting, tail_seconds)
    yield from open_files


def decode(recognizer, waiting, tail_seconds):
    """Decode pieces side by side and add each one's text to its file's."""
    began = time.process_time()
    streams = []
    for _, samples, rate in waiting:
        stream = recognizer.create_stream()
        stream.accept_waveform(rate, samples)
        stream.accept_waveform(rate, np.zeros(int(tail_seconds * rate), np.float32))  # the last blocks' look-ahead
        stream.input_finished()
        streams.append(stream)
    while True:
        ready = [stream for stream in streams if recognizer.is_ready(stream)]
        if not ready:
            break
        recognizer.decode_streams(ready)
    spent = (time.process_time() - began) / max(1, len(waiting))
    for (told, _, _), stream in zip(waiting, streams, strict=True):
        told["text"] = " ".join([*told["text"].split(), *recognizer.get_result(stream).split()])
        told["cpu_seconds"] = round(told["cpu_seconds"] + spent, 4)


def pieces(file):
    """(samples, rate) of at most 30 s each, float32 in [-1, 1], cut at the quietest place of the last third: time and
    memory do not grow with a recording's length squared.
    """
    held, rate = np.zeros(0, np.float32), 0
    for block, rate in blocks(file):
        held = np.concatenate([held, block])
        limit, width = int(LONGEST_SECONDS * rate), int(0.2 * rate)
        while len(held) > limit:
            power = np.concatenate([[0.0], np.square(held[2 * limit // 3:limit], dtype=np.float64).cumsum()])
            cut = 2 * limit // 3 + int((power[width:] - power[:-width]).argmin()) + width // 2
            yield held[:cut], rate
            held = held[cut:]
    if len(held):
        yield held, rate


def blocks(file):
    """One channel of a sound file, 10 s at a time, and its rate."""
    try:
        import soundfile
    except ImportError:
        yield from wav_blocks(file)
        return
    try:
        with soundfile.SoundFile(file) as sound:
            while len(block := sound.read(10 * sound.samplerate, dtype="float32", always_2d=True)):
                yield block.mean(1), sound.samplerate
    except soundfile.SoundFileError as error:
        sys.exit(f"error: {file}: not a readable sound file ({error})")


def wav_blocks(file):
    try:
        with wave.open(file) as sound:
            if sound.getsampwidth() != 2:
                sys.exit(f"error: {file}: {8 * sound.getsampwidth()}-bit samples; convert it to 16 bits, "
                         "or pip install soundfile")
            while data := sound.readframes(10 * sound.getframerate()):
                block = np.frombuffer(data, np.int16).reshape(-1, sound.getnchannels()).mean(1)
                yield block.astype(np.float32) / 32768, sound.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        sys.exit(f"error: {file}: not a readable wav file ({error}); pip install soundfile reads other kinds")


if __name__ == "__main__":
    main()
