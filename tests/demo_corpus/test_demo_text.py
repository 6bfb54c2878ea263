from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from asr_distill.errors import UserError
from local.demo_corpus.text import bible_paragraphs, prompts_and_text, sentences, spoken_form, words_of


def test_sentences_keep_titles_together_and_leave_headings_out() -> None:
    paragraphs = ["CHAPTER I", 'Mr. Knightley was kind. "So Mrs. Weston says," cried Emma!  _He_ went--at once.']
    assert list(sentences(paragraphs)) == ["Mister Knightley was kind.", '"So Missus Weston says," cried Emma!',
                                          "He went , at once."]


def test_words() -> None:
    assert words_of("\"'Tis Emma's own,\" he re-read.") == ["tis", "emma's", "own", "he", "re", "read"]


def test_spoken_form() -> None:
    assert spoken_form("\"You MUST go (now);\" said 'he': Emma's dog!") == "You Must go now, said he, Emma's dog!"
    assert spoken_form('"Indeed?" , "Why not?"') == "Indeed? Why not?"


def test_prompts_are_unique_known_and_of_the_right_length() -> None:
    paragraphs = ["He went to the house. He went to the house. Too short. The house of Zzyzxq was there today. "
                  "In 1805 he went to the house. He wrote b to the house. We were all very happy that day."]
    prompts, text = prompts_and_text(paragraphs, 4, 7)
    assert [prompt.words for prompt in prompts] == ["HE WENT TO THE HOUSE", "WE WERE ALL VERY HAPPY THAT DAY"]
    assert prompts[0].spoken == "He went to the house."
    assert "THE HOUSE OF ZZYZXQ WAS THERE TODAY" in text and "TOO SHORT" in text and len(text) == 7


def test_bible(tmp_path: Path) -> None:
    database = tmp_path / "Bible.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE Bible (Passage1 TEXT)")
        connection.execute("INSERT INTO Bible VALUES ('1:3 And God said, Let there be light: and there was light.')")
    assert list(bible_paragraphs(database)) == ["And God said, Let there be light: and there was light."]
    with pytest.raises(UserError, match=r"none\.db: not readable"):
        list(bible_paragraphs(tmp_path / "none.db"))
