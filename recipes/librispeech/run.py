"""librispeech: 100, 460 or 960 hours; the stages of mini_librispeech with other settings, meant for GPUs.

    python recipes/librispeech/run.py --conf conf/librispeech_460.yaml --set corpus.dir=LIBRISPEECH

100 hours by default. Without corpus.dir the audio is downloaded, and with it LibriSpeech's lexicon and its small
language model. Tuned on dev-clean, reported on dev-other; test sets by --set (corpus.subsets).
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asr_distill.corpus.librispeech import prepare
from asr_distill.recipe import Recipe, StageRun, stage
from asr_distill.recipe_command import main
from local.full_librispeech import find_resources
from recipes.mini_librispeech import run as mini
from recipes.settings import Settings
from recipes.work import work_of


@stage(settings=["corpus"], resumable=True)
def corpus(run: StageRun) -> dict:
    """Audio and transcripts of the chosen subsets, validated, to lhotse manifests."""
    settings = run.settings.corpus
    resources, splits = find_resources(settings.dir, settings.subsets, settings.download_dir, settings.base_url)
    resources.save(run.out)
    return prepare(resources.root, splits.subsets, run.out, workers=settings.workers, on_error=settings.on_error,
                   executor=run.executor)


recipe = Recipe("librispeech", Settings, ROOT / "conf" / "librispeech.yaml", [corpus, *mini.STAGES[1:]],
                work=work_of)

if __name__ == "__main__":
    sys.exit(main(recipe))
