"""A LibriSpeech-shaped corpus in a language of tones: learnable in seconds, by pip alone.

Each phone is two tones that glide over its three states; speakers differ in pitch and pace; noise makes a few words
hard. Enough to prove that every stage does its work; nothing about speech is claimed of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
PHONES = ["AA", "B", "D", "EH", "F", "IY", "K", "M", "OW", "S", "T", "UW"]
WORDS = ["BAT", "DEEM", "FOOT", "KAB", "MEEK", "SOAP", "TOOK", "OBEY", "ACID", "EAT", "OOMPH", "AIDE", "BOAT", "FEED",
         "SOOT", "MODE"]


def lexicon(spelled: bool = False) -> dict[str, list[str]]:
    """Pronunciations drawn once: every word other phones, some sharing their beginnings. Spelled: a letter a phone."""
    if spelled:
        return {word: [PHONES[(ord(letter) - ord("A")) % len(PHONES)] for letter in word] for word in WORDS}
    rng = np.random.default_rng(5)
    return {word: [PHONES[i] for i in rng.permutation(len(PHONES))[: 2 + index % 3]]
            for index, word in enumerate(WORDS)}


def say(words: list[str], rng: np.random.Generator, pitch: float, pace: float, spelled: bool = False) -> np.ndarray:
    """float32 samples of a sentence."""
    entries = lexicon(spelled)
    low = dict(zip(PHONES, np.geomspace(300, 1500, len(PHONES)), strict=True))
    high = dict(zip(PHONES, np.random.default_rng(6).permutation(np.geomspace(1800, 5500, len(PHONES))), strict=True))
    pieces = [np.zeros(int(RATE * rng.uniform(0.1, 0.25)))]
    for word in words:
        for phone in entries[word]:
            length = int(RATE * 0.09 * pace * rng.uniform(0.8, 1.25))
            glide = np.linspace(0.94, 1.06, length) * pitch
            tone = sum(np.sin(2 * np.pi * np.cumsum(f * glide) / RATE + rng.uniform(0, 6)) for f in
                       (low[phone], high[phone]))
            pieces.append(0.06 * tone * np.hanning(length) ** 0.3)
        if rng.random() < 0.4:
            pieces.append(np.zeros(int(RATE * rng.uniform(0.05, 0.15))))
    pieces.append(np.zeros(int(RATE * rng.uniform(0.1, 0.25))))
    speech = np.concatenate(pieces)
    return (speech + rng.normal(0, 0.02, len(speech))).astype(np.float32)


def sentence(rng: np.random.Generator) -> list[str]:
    """A random walk in which some words like to follow others."""
    words = [WORDS[rng.integers(len(WORDS))]]
    for _ in range(int(rng.integers(2, 7))):
        after = (WORDS.index(words[-1]) + int(rng.integers(1, 4))) % len(WORDS)
        words.append(WORDS[after] if rng.random() < 0.6 else WORDS[rng.integers(len(WORDS))])
    return words


def write_corpus(root: Path, *, train: int = 160, dev: int = 80, seed: int = 1, spelled: bool = False) -> Path:
    """Write LibriSpeech/train-clean-5 and dev-clean-2, lexicon.txt and lm.txt under `root`."""
    rng = np.random.default_rng(seed)
    for subset, count, first, speakers in (("train-clean-5", train, 100, 8), ("dev-clean-2", dev, 200, 10)):
        for speaker in range(first, first + speakers):
            pitch, pace = rng.uniform(0.92, 1.08), rng.uniform(0.85, 1.2)
            folder = root / "LibriSpeech" / subset / str(speaker) / "1"
            folder.mkdir(parents=True)
            lines = []
            for number in range(count // speakers):
                words, name = sentence(rng), f"{speaker}-1-{number:04d}"
                soundfile.write(folder / f"{name}.flac", say(words, rng, pitch, pace, spelled), RATE, subtype="PCM_16")
                lines.append(f"{name} {' '.join(words)}\n")
            (folder / f"{speaker}-1.trans.txt").write_text("".join(lines))
    (root / "lexicon.txt").write_text("".join(f"{w}\t{' '.join(p)}\n" for w, p in lexicon(spelled).items()))
    (root / "lm.txt").write_text("".join(" ".join(sentence(rng)) + "\n" for _ in range(3000)))
    return root
