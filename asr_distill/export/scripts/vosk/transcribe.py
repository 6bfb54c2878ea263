"""Transcribe sound files with this directory: python transcribe.py FILE.wav ...   (pip install vosk)

16-bit wav of the model's rate; with `pip install soundfile` also flac, ogg, mp3. Every file of the directory is
compared with manifest.json first. --json: a JSON object a line, with the words' times.
"""

import argparse
import json
import sys
import time
import wave
from pathlib import Path

import vosk

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # the directory stays as it was exported
try:
    from export_files import checked_manifest, peak_bytes
except ImportError:
    sys.exit(f"error: {HERE / 'export_files.py'}: missing; copy the whole directory again")

BLOCK = 8000  # bytes handed over at a time
VOSK_FRAME_SECONDS = 0.03
ROUND_SECONDS = 120  # after so much audio, at the next pause, a recognizer is done


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    facts = checked_manifest()["facts"]
    vosk.SetLogLevel(-1)
    model = vosk.Model(str(HERE))
    for file in arguments.files:
        began = time.process_time()
        words = transcribe(model, blocks(file, facts["sample_rate"]), facts["frame_seconds"])
        spent = time.process_time() - began
        text = " ".join(word["word"] for word in words)
        if arguments.json:
            print(json.dumps({"file": file, "text": text, "words": words, "cpu_seconds": round(spent, 4),
                              "peak_bytes": peak_bytes()}, ensure_ascii=False), flush=True)
        else:
            print(f"{file}\t{text}" if len(arguments.files) > 1 else text, flush=True)


def transcribe(model, sound, frame_seconds):
    """[{"word", "start", "end"}] of blocks of 16-bit samples; times in seconds."""
    words, recognizer, begun, heard, rate = [], None, 0, 0, 1  # bytes before the recognizer's first one, bytes in all
    for block, rate in sound:
        for begin in range(0, len(block), BLOCK):
            recognizer = recognizer or new_recognizer(model, rate)
            piece = block[begin:begin + BLOCK]
            heard += len(piece)
            if recognizer.AcceptWaveform(piece):
                words += found(recognizer.Result(), begun / 2 / rate, frame_seconds)
                if heard - begun > 2 * rate * ROUND_SECONDS:
                    begun, recognizer = heard, None
    return words + (found(recognizer.FinalResult(), begun / 2 / rate, frame_seconds) if recognizer else [])


def new_recognizer(model, rate):
    recognizer = vosk.KaldiRecognizer(model, rate)
    recognizer.SetMaxAlternatives(1)  # the best path; without it Vosk answers with the least expected errors
    recognizer.SetWords(True)
    return recognizer


def found(result, offset, frame_seconds):
    """Vosk takes every frame for 30 ms; this model's are shorter."""
    best, scale = json.loads(result)["alternatives"][0], frame_seconds / VOSK_FRAME_SECONDS
    return [{"word": word["word"], "start": round(offset + word["start"] * scale, 3),
             "end": round(offset + word["end"] * scale, 3)} for word in best.get("result", [])]


def blocks(file, rate):
    """16-bit samples of one channel, as bytes, 10 s at a time, and their rate."""
    try:
        import soundfile
    except ImportError:
        yield from wav_blocks(file, rate)
        return
    try:
        with soundfile.SoundFile(file) as sound:
            check_rate(file, sound.samplerate, rate)
            while len(block := sound.read(10 * sound.samplerate, dtype="int16", always_2d=True)):
                mono = block[:, 0] if block.shape[1] == 1 else block.mean(1).astype("int16")
                yield mono.tobytes(), sound.samplerate
    except soundfile.SoundFileError as error:
        sys.exit(f"error: {file}: not a readable sound file ({error})")


def check_rate(file, found, rate):
    if found < rate:
        sys.exit(f"error: {file}: {found} samples a second, the model needs {rate} or more; convert it")


def wav_blocks(file, rate):
    try:
        with wave.open(file) as sound:
            if sound.getsampwidth() != 2 or sound.getnchannels() != 1:
                sys.exit(f"error: {file}: {sound.getnchannels()} channels of {8 * sound.getsampwidth()} bits; convert "
                         "it to one channel of 16 bits, or pip install soundfile")
            check_rate(file, sound.getframerate(), rate)
            while data := sound.readframes(10 * sound.getframerate()):
                yield data, sound.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        sys.exit(f"error: {file}: not a readable wav file ({error}); pip install soundfile reads other kinds")


if __name__ == "__main__":
    main()
