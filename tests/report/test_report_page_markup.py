"""Markup escapes everything that is text."""

from __future__ import annotations

import html

import pytest
from html_check import checked

from asr_distill.report.page.markup import Html, join, raw, tag, text

HOSTILE = ["<script>alert(1)</script>", "a & b &amp; c", "\"'><b>", "</title><img src=x onerror=x>",
           "Grüße \u202e 日本"]


@pytest.mark.parametrize("words", HOSTILE)
def test_text_and_attributes_come_back_as_they_were(words: str) -> None:
    document = f"<!DOCTYPE html>\n{tag('p', words, title=words, data_at=words)}"
    (paragraph,) = checked(document).all("p")
    assert paragraph.text == words and not paragraph.children
    assert paragraph.attributes["title"] == paragraph.attributes["data-at"] == words


def test_markup_inside_markup_stays() -> None:
    inner = tag("b", "<x>")
    assert inner == "<b>&lt;x&gt;</b>" and isinstance(inner, Html)
    assert tag("p", inner, None, 3, " ", 0.5) == "<p><b>&lt;x&gt;</b>3 0.5</p>"
    assert join("<", inner) == "&lt;<b>&lt;x&gt;</b>"
    assert isinstance(inner + "<i>", str) and text(inner + "<i>").endswith("&lt;i&gt;")  # a sum is text again


def test_attributes() -> None:
    assert tag("audio", controls=True, muted=False, src=None, class_="a", aria_label="b") == \
        '<audio controls class="a" aria-label="b"></audio>'
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("meta", name="x") == '<meta name="x">'


def test_what_a_page_cannot_hold_is_replaced() -> None:
    assert text("a\x00b\ud800c\x1b[0m\td\n") == "a\ufffdb\ufffdc\ufffd[0m\td\n"
    text("\ud800").encode("utf-8")


def test_a_script_that_would_end_itself_is_refused() -> None:
    assert raw("a < b && c") == "a < b && c" and html.unescape(raw("x")) == "x"
    with pytest.raises(ValueError, match="</"):
        raw("document.write('</script>')")
