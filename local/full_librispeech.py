"""LibriSpeech's large subsets: which train, which tune the decoder, which are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.lock import exclusive
from local.librispeech import BASE_URL, download_language, download_subsets
from local.mini_librispeech import DOWNLOADING, LEXICON, SMALL_LM
from local.resources import TRAIN, TUNE, Resources, Splits, librispeech_root


def find_resources(corpus_dir: Path | None, subsets: Mapping[str, Sequence[str]], download_dir: str,
                   base_url: str) -> tuple[Resources, Splits]:
    """An existing LibriSpeech folder, or the subsets downloaded with LibriSpeech's lexicon and small LM.

    Raises UserError where `subsets` lacks a split that the stages need.
    """
    if TRAIN not in subsets or TUNE not in subsets or len(subsets) < 3:
        raise UserError(f"setting 'corpus.subsets' must name folders for {TRAIN}, {TUNE} and at least one split to "
                        f"report; it has {', '.join(subsets) or 'none'}")
    splits = Splits({split: tuple(folders) for split, folders in subsets.items()}, {})
    if corpus_dir:
        return Resources(librispeech_root(corpus_dir)), splits
    dest, url = Path(download_dir), base_url or BASE_URL
    with exclusive(dest, DOWNLOADING):
        root = download_subsets([folder for folders in subsets.values() for folder in folders], dest, url)
        files = download_language([LEXICON, SMALL_LM], dest, url)
    return Resources(root, lexicon=files[LEXICON], arpa=files[SMALL_LM]), splits
