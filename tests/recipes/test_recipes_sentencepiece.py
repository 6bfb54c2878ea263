"""Settings of sentencepiece units: older experiments stay valid, another kind of unit makes every later stage again."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_distill.config import load_settings
from asr_distill.stage_record import Ingredients, gather
from recipes.mini_librispeech.run import STAGES
from recipes.settings import Settings

CONF = Path(__file__).resolve().parents[2] / "conf"
PIECES = [CONF / f"mini_librispeech{name}.yaml" for name in ("", "_quick", "_sentencepiece")]


def _ingredients(settings: Settings) -> dict[str, Ingredients]:
    """Of every stage, each with the digests of those that it reads."""
    made: dict[str, Ingredients] = {}
    for stage in STAGES:
        made[stage.name] = gather(settings, stage.settings, {name: made[name].digest for name in stage.reads},
                                  stage.revision)
    return made


def test_units_of_phones_leave_no_trace_in_a_record() -> None:
    made = _ingredients(load_settings(Settings, PIECES[:2]))
    named = {key for each in made.values() for key in each.settings}
    assert "lang.strip_stress" in named and "mono.states" in named
    assert not [key for key in named if "pieces" in key or key.endswith(("units", "letter_states"))]


def test_other_units_make_all_stages_from_the_language_on_again() -> None:
    """So no teacher over phones is ever left beside a student over pieces, also where studies share stages."""
    phones = _ingredients(load_settings(Settings, PIECES[:2]))
    pieces = _ingredients(load_settings(Settings, PIECES[:2], ["lang.units=sentencepiece",
                                                              "lang.silence.position_dependent=false"]))
    same = {name for name in phones if phones[name].digest == pieces[name].digest}
    assert {"corpus", "features"} <= same
    assert not same & {"lang", "mono", "tri3b", "align", "teachers", "soft_targets", "baseline", "student", "graph",
                       "decode_student", "export", "report"}
    more = _ingredients(load_settings(Settings, PIECES, ["lang.pieces.vocab_size=200"]))
    assert more["lang"].settings["lang.pieces.vocab_size"] == 200 and more["lang"].digest != pieces["lang"].digest


def test_the_shipped_settings_compose() -> None:
    settings = load_settings(Settings, PIECES)
    assert settings.lang.units == "sentencepiece" and not settings.lang.silence.position_dependent
    assert settings.mono.letter_states == 1 and settings.teachers.groups.keys() == {"adapted", "filterbank"}
    with pytest.raises(Exception, match="position_dependent=false"):
        load_settings(Settings, PIECES[:2], ["lang.units=sentencepiece"])
