"""Transcribe sound files with this directory: python transcribe.py FILE.wav ...   (pip install sherpa-onnx)

16-bit wav, any rate; with `pip install soundfile` also flac, ogg, mp3. Every file of the directory is compared with
manifest.json first. --json: a JSON object a line; --batch N: so many files at once.
"""

import argparse
import hashlib
import json
import sys
import time
import wave
from pathlib import Path

import numpy as np
import sherpa_onnx

HERE = Path(__file__).resolve().parent


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
    for first in range(0, len(arguments.files), arguments.batch):
        files = arguments.files[first:first + arguments.batch]
        began = time.process_time()
        texts, seconds = transcribe(recognizer, files, facts["tail_seconds"])
        spent = (time.process_time() - began) / len(files)
        for file, text, length in zip(files, texts, seconds, strict=True):
            if arguments.json:
                print(json.dumps({"file": file, "text": text, "seconds": round(length, 3),
                                  "cpu_seconds": round(spent, 4), "peak_bytes": peak_bytes()},
                                 ensure_ascii=False), flush=True)
            else:
                print(f"{file}\t{text}" if len(arguments.files) > 1 else text, flush=True)


def transcribe(recognizer, files, tail_seconds):
    """Texts of some files, decoded side by side, and how many seconds each lasts."""
    streams, seconds = [], []
    for file in files:
        samples, rate = read(file)
        stream = recognizer.create_stream()
        stream.accept_waveform(rate, samples)
        stream.accept_waveform(rate, np.zeros(int(tail_seconds * rate), np.float32))  # the last blocks' look-ahead
        stream.input_finished()
        streams.append(stream)
        seconds.append(len(samples) / rate)
    while True:
        ready = [stream for stream in streams if recognizer.is_ready(stream)]
        if not ready:
            break
        recognizer.decode_streams(ready)
    return [" ".join(recognizer.get_result(stream).split()) for stream in streams], seconds


def read(file):
    """One channel of a sound file, float32 in [-1, 1], and its rate."""
    try:
        import soundfile
    except ImportError:
        return read_wav(file)
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        sys.exit(f"error: {file}: not a readable sound file ({error})")
    return samples.mean(1), rate


def read_wav(file):
    try:
        with wave.open(file) as sound:
            if sound.getsampwidth() != 2:
                sys.exit(f"error: {file}: {8 * sound.getsampwidth()}-bit samples; convert it to 16 bits, "
                         "or pip install soundfile")
            data = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
            return data.reshape(-1, sound.getnchannels()).mean(1).astype(np.float32) / 32768, sound.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        sys.exit(f"error: {file}: not a readable wav file ({error}); pip install soundfile reads other kinds")


def peak_bytes():
    """The most memory that this process has held; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def checked_manifest():
    """manifest.json, after every file was compared with it."""
    try:
        manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {HERE / 'manifest.json'}: cannot be read ({error}); copy the whole directory again")
    if manifest.get("format_version") != 1:
        sys.exit(f"error: {HERE / 'manifest.json'}: format version {manifest.get('format_version')}, this script "
                 "reads 1; export again")
    for name, entry in manifest["files"].items():
        path = HERE / name
        if not path.is_file():
            sys.exit(f"error: {path}: missing; copy the whole directory again")
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != entry["sha256"]:
            sys.exit(f"error: {path}: changed or damaged since export (sha256 differs); copy the whole directory again")
    return manifest


if __name__ == "__main__":
    main()
