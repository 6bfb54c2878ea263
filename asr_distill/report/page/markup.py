"""HTML and SVG elements as strings in which every text is escaped."""

from __future__ import annotations

import html
import re

VOID = frozenset(["br", "col", "hr", "img", "input", "link", "meta", "source"])
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # what a page or UTF-8 cannot hold


class Html(str):
    """Markup: goes into a page as it is. Any other string is text and is escaped."""


Content = str | int | float | None  # Html is a str


def text(value: Content) -> Html:
    """Escaped text; Html stays; None is nothing. Control characters become U+FFFD."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(_CONTROL.sub("\ufffd", str(value)), quote=True))


def tag(name: str, /, *children: Content, **attributes: Content | bool) -> Html:
    """An element. Attributes: `class_` is class, `data_at` data-at; True is a bare one, None and False are left out."""
    written = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            written.append(f' {key}="{text(str(value))}"')
    start = f"<{name}{''.join(written)}>"
    if name in VOID:
        return Html(start)
    return Html(f"{start}{join(*children)}</{name}>")


def join(*parts: Content) -> Html:
    return Html("".join(text(part) for part in parts))


def raw(source: str) -> Html:
    """A script's or style sheet's own text. Raises ValueError where it would end its element."""
    if "</" in source:
        raise ValueError("a script or style sheet in a page must not hold '</'")
    return Html(source)
