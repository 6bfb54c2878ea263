"""demo: the embedded default corpus, spoken by the machine itself; from nothing to a word error rate table.

    make demo        (or: python recipes/demo/run.py)

Voices of Kokoro-82M read Jane Austen; train, dev and test have different voices. The corpus is made once and kept in
data/. The stages are those of mini_librispeech; only the first is another.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asr_distill.corpus.librispeech import prepare
from asr_distill.lock import exclusive
from asr_distill.recipe import Recipe, StageRun, stage
from asr_distill.recipe_command import main
from local.demo_corpus.make import make_corpus
from local.demo_corpus.settings import DemoCorpusSettings
from local.resources import TRAIN, TUNE, Resources
from recipes.mini_librispeech import run as mini
from recipes.settings import CorpusSettings, Settings
from recipes.work import work_of

SUBSETS = {TRAIN: "train-clean", TUNE: "dev-clean", "test_clean": "test-clean", "test_other": "test-other"}


@dataclass(frozen=True)
class DemoCorpus(CorpusSettings):
    """`dir` may name a finished demo corpus; without it one is made under download_dir."""

    make: DemoCorpusSettings = DemoCorpusSettings()


@dataclass(frozen=True)
class DemoSettings(Settings):
    corpus: DemoCorpus = field(default_factory=DemoCorpus)


@stage(settings=["corpus"], resumable=True)
def corpus(run: StageRun) -> dict:
    """Speech made by Kokoro voices reading Austen (once, cached), validated, to lhotse manifests."""
    settings = run.settings.corpus
    data = Path(settings.download_dir)
    root = settings.dir or data / "demo_corpus"
    if not settings.dir:
        with exclusive(data, "give another --set corpus.download_dir=DIR"):
            make_corpus(root, data / "demo_cache", settings.make)
    Resources(root, text=root / "lm.txt").save(run.out)
    return prepare(root, SUBSETS, run.out, workers=settings.workers, on_error=settings.on_error,
                   executor=run.executor)


recipe = Recipe("demo", DemoSettings, ROOT / "conf" / "demo.yaml", [corpus, *mini.STAGES[1:]],
                work=work_of)

if __name__ == "__main__":
    sys.exit(main(recipe))
