"""Which utterances train, which tune the decoder, which are reported: mini_librispeech's splits."""

from __future__ import annotations

from pathlib import Path

from asr_distill.corpus.librispeech import read_utterance_ids
from asr_distill.errors import UserError
from asr_distill.lock import exclusive
from asr_distill.logs import log
from local.librispeech import BASE_URL, download_language, download_subsets
from local.resources import TRAIN, TUNE, Resources, Splits, librispeech_root

TEST = "dev_clean_2"
LEXICON, SMALL_LM = "librispeech-lexicon.txt", "3-gram.pruned.3e-7.arpa.gz"
DOWNLOADING = "give another --set corpus.download_dir=DIR"
TUNE_SPEAKERS = 6  # of dev-clean-2's 26, where there is no other part of dev-clean


def find_resources(corpus_dir: Path | None, test_ids: Path | None, download_dir: str, base_url: str,
                   tune_utterances: int = 0) -> tuple[Resources, Splits]:
    """An existing LibriSpeech folder, or the downloaded mini_librispeech with LibriSpeech's lexicon and small LM.

    `tune_utterances`: so many tune the decoder, spread evenly over those that could (0: all).
    """
    if corpus_dir:
        root = librispeech_root(corpus_dir)
        return Resources(root), choose_splits(root, test_ids, tune_utterances)
    dest, url = Path(download_dir), base_url or BASE_URL
    with exclusive(dest, DOWNLOADING):
        root = download_subsets(["train-clean-5", "dev-clean-2"], dest, url)
        files = download_language([LEXICON, SMALL_LM], dest, url)
    return Resources(root, lexicon=files[LEXICON], arpa=files[SMALL_LM]), choose_splits(root, test_ids, tune_utterances)


def choose_splits(root: Path, test_ids: Path | None, tune_utterances: int = 0) -> Splits:
    """Train on train-clean-5, report dev-clean-2, tune on what is in neither.

    With dev-clean at hand the decoder is tuned on the part of it outside dev-clean-2 (whose ids come from the
    folder dev-clean-2, or from the file `test_ids`, one id a line). With dev-clean-2 alone its first six
    speakers tune and the other twenty are reported; the log says so.

    Raises UserError where neither is possible.
    """
    subsets = {TRAIN: "train-clean-5"}
    whole, second = root / "dev-clean", root / "dev-clean-2"
    if whole.is_dir():
        reported = read_utterance_ids(test_ids) if test_ids else frozenset(utterances(second))
        if not reported:
            raise UserError(f"{root}: dev-clean is here but nothing says which utterances are dev-clean-2: put the "
                            "folder dev-clean-2 beside it or give --set corpus.test_ids=FILE (one id a line)")
        present = frozenset(utterances(whole))
        if missing := sorted(reported - present):
            raise UserError(f"{whole}: {len(missing)} utterances of dev-clean-2 are not here, for example {missing[0]}")
        return Splits({**subsets, TUNE: "dev-clean", TEST: "dev-clean"},
                      {TUNE: _spread(present - reported, tune_utterances), TEST: reported})
    if second.is_dir():
        everyone = utterances(second)
        speakers = sorted({name.split("-")[0] for name in everyone}, key=lambda speaker: (len(speaker), speaker))
        tuners = set(speakers[:TUNE_SPEAKERS])
        tune = frozenset(name for name in everyone if name.split("-")[0] in tuners)
        log.warning("no dev-clean beside dev-clean-2: its first %d speakers (%d utterances) tune the decoder and "
                    "are left out of the reported set", TUNE_SPEAKERS, len(tune))
        return Splits({**subsets, TUNE: "dev-clean-2", TEST: "dev-clean-2"},
                      {TUNE: _spread(tune, tune_utterances), TEST: frozenset(everyone) - tune})
    raise UserError(f"{root}: neither dev-clean-2 nor dev-clean is here; is this the LibriSpeech folder itself?")


def _spread(ids: frozenset[str], number: int) -> frozenset[str]:
    """`number` of the ids, evenly over the sorted ones and so over speakers; all for 0, or where there are fewer."""
    ordered = sorted(ids)
    if not number or number >= len(ordered):
        return ids
    return frozenset(ordered[place * len(ordered) // number] for place in range(number))


def utterances(subset: Path) -> list[str]:
    """Utterance ids of a subset, by its audio files."""
    return sorted(path.stem for path in subset.glob("*/*/*") if path.suffix.lower() in (".flac", ".wav")
                  and not path.name.startswith("."))
