"""Pronunciations of words that a lexicon lacks: Phonetisaurus (Novak et al. 2016), a joint n-gram over aligned
letters and phones, trained on the lexicon itself and kept in a cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.files import atomic_path, read_json, write_json
from asr_distill.lang.lexicon import SILENCE_PHONE, SPOKEN_NOISE_PHONE, Lexicon, Pronunciation

_SPELLING = re.compile(r"[^\W\d_]+(?:'?[^\W\d_]+)*'?|'[^\W\d_']+'?")  # letters, with apostrophes among them
_NOT_SPEECH = {SILENCE_PHONE, SPOKEN_NOISE_PHONE}


@dataclass(frozen=True)
class G2pConfig:
    """Settings of the model.

    Unseen words wrong (3,000 held out of CMUdict, stress ignored) after 1, 3, 11 passes: 26.2, 25.3, 25.6 %, for
    31, 47, 103 s of CPU. Order 5, 6, 8: 26.6, 26.2, 25.9 %, for models of 15, 25, 40 MB.
    """

    order: int = 6  # of the joint n-gram
    passes: int = 1  # of EM that aligns letters with phones

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 9:
            raise ValueError(f"order must be within 1 .. 9, not {self.order}")
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, not {self.passes}")


class G2p:
    """A trained model: `pronounce` spells words out in the phones of the lexicon that it was trained on."""

    def __init__(self, directory: Path):
        """Opens a folder that `train` wrote. Raises UserError where it is incomplete."""
        self.directory = directory
        self.model = directory / "model.fst"
        self.letters = frozenset(read_json(directory / "g2p.json")["letters"])
        if not self.model.is_file():
            raise UserError(f"{self.model}: no such file; remove {directory} so that it is trained again")

    @classmethod
    def cached(cls, lexicon: Lexicon, cache: Path, config: G2pConfig = G2pConfig()) -> G2p:
        """The model of this lexicon and these settings from `cache`, trained first where it is not there."""
        entries = training_entries(lexicon)
        digest = hashlib.sha256(json.dumps([asdict(config), entries]).encode()).hexdigest()[:16]
        directory = cache / f"g2p-{digest}"
        if not (directory / "g2p.json").is_file():
            return cls.train(lexicon, directory, config)
        return cls(directory)

    @classmethod
    def train(cls, lexicon: Lexicon, directory: Path, config: G2pConfig = G2pConfig()) -> G2p:
        """Align, estimate, compile. Raises UserError where the lexicon is too small or a tool fails."""
        entries = training_entries(lexicon)
        if len(entries) < 2:
            raise UserError("the lexicon has too few spelled words to learn pronunciations from")
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, atomic_path(directory / "model.fst") as model:
            words, aligned, arpa = (str(Path(folder) / name) for name in ("words", "aligned", "arpa"))
            Path(words).write_text("".join(f"{word}\t{phones}\n" for word, phones in entries), "utf-8")
            _tool("phonetisaurus-align", f"--input={words}", f"--ofile={aligned}", f"--iter={config.passes}",
                  "--seq1_del=false", "--seq2_del=true", "--seq1_max=2", "--seq2_max=2", "--grow=false")
            _tool("estimate-ngram", "-o", str(config.order), "-t", aligned, "-wl", arpa)
            _tool("phonetisaurus-arpa2wfst", f"--lm={arpa}", f"--ofile={model}")
            if not model.is_file() or not model.stat().st_size:
                raise UserError(f"{directory}: training of pronunciations wrote no model (is the disk full?)")
        letters = sorted({letter for word, _ in entries for letter in word})
        write_json(directory / "g2p.json", {"letters": letters, "entries": len(entries), **asdict(config)})
        return cls(directory)

    def pronounce(self, words: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The likeliest phones of every word (put in upper case; hyphens are ignored).

        Raises UserError naming the words that cannot be spelled out: digits, or letters that the lexicon lacks.
        """
        wanted = list(dict.fromkeys(words))
        ignored = "-" if "'" in self.letters else "-'"
        spelling = {word: word.upper().translate(str.maketrans("", "", ignored)) for word in wanted}
        strange = [word for word, letters in spelling.items()
                   if not _SPELLING.fullmatch(letters) or not self.letters.issuperset(letters)]
        if strange:
            raise UserError(f"cannot pronounce {_some(strange)}: write digits and signs out in letters, or add the "
                            "words to the lexicon")
        found = self._apply(sorted(set(spelling.values())))
        silent = [word for word in wanted if not found.get(spelling[word])]
        if silent:
            raise UserError(f"found no pronunciation of {_some(silent)}: add them to the lexicon")
        return {word: found[spelling[word]] for word in wanted}

    def _apply(self, spellings: list[str]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        if not spellings:
            return found
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "words"
            file.write_text("".join(f"{spelling}\n" for spelling in spellings), "utf-8")
            output = _tool("phonetisaurus-g2pfst", f"--model={self.model}", f"--wordlist={file}",
                           "--nbest=1", "--print_scores=false")
        for line in output.splitlines():
            spelling, _, phones = line.partition("\t")
            found.setdefault(spelling, tuple(phones.split()))
        return found


def covering(lexicon: Lexicon, words: Iterable[str], cache: Path,
             config: G2pConfig = G2pConfig()) -> tuple[Lexicon, list[str]]:
    """A lexicon of exactly `words`, and those of them whose pronunciation had to be guessed.

    The model learns from all of `lexicon`; nothing is trained where no word is missing. Raises UserError for
    words that cannot be spelled out.
    """
    wanted = list(dict.fromkeys(words))
    guessed = [word for word in wanted if word not in lexicon]
    covered = lexicon.restricted(wanted)
    if guessed:
        found = G2p.cached(lexicon, cache, config).pronounce(guessed)
        covered = covered.extended({word: [Pronunciation(phones)] for word, phones in found.items()})
    return covered, guessed


def training_entries(lexicon: Lexicon) -> list[tuple[str, str]]:
    """(spelling, phones) of every pronunciation that can teach letters: no noises, no signs, no digits."""
    return sorted((word, " ".join(p.phones)) for word, pronunciations in lexicon for p in pronunciations
                  if _SPELLING.fullmatch(word) and not _NOT_SPEECH.intersection(p.phones))


def _some(words: list[str]) -> str:
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(f"'{word}'" for word in words[:5]) + more


def _tool(name: str, *arguments: str) -> str:
    """Run one of the package's programs; its standard output. Raises UserError where it fails."""
    try:
        import phonetisaurus
    except ImportError:
        raise UserError("pronunciations of new words need the package phonetisaurus (pip install phonetisaurus), "
                        "or a lexicon that has every word") from None
    root = Path(phonetisaurus.__file__).parent
    program = root / "bin" / platform.machine() / name
    if not program.is_file():
        raise UserError(f"phonetisaurus has no program for {platform.machine()}: give a lexicon with every word")
    libraries = os.pathsep.join(filter(None, [str(root / "lib" / platform.machine()),
                                              os.environ.get("LD_LIBRARY_PATH", "")]))
    run = subprocess.run([str(program), *arguments], env={**os.environ, "LD_LIBRARY_PATH": libraries},
                         capture_output=True, text=True, encoding="utf-8", errors="replace")
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{name} failed ({run.returncode}): {last}")
    return run.stdout
