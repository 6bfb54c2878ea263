"""A walk through an HTML document that refuses what a browser would silently mend, or load from elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LOADS = {"src", "href", "xlink:href", "action", "formaction", "poster", "data", "srcset", "background", "ping", "cite"}
REFERS = {"aria-labelledby", "aria-describedby", "aria-controls", "for"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    text: str = ""  # of itself and all inside it
    children: list[Element] = field(default_factory=list)

    def all(self, name: str = "", class_: str = "") -> list[Element]:
        found = [self] if (not name or self.name == name) and (not class_ or class_ in self.classes) else []
        return found + [inner for child in self.children for inner in child.all(name, class_)]

    @property
    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()


class _Walk(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]
        self.doctype = ""

    def handle_decl(self, decl: str) -> None:
        self.doctype = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> inside <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def checked(document: str) -> Element:
    """The document's tree; AssertionError where elements overlap, ids are not unique, a reference inside the page has
    no target, or anything would be loaded but data in the page itself.
    """
    walk = _Walk()
    walk.feed(document)
    walk.close()
    assert walk.doctype == "DOCTYPE html" and len(walk.open) == 1, f"never closed: {[e.name for e in walk.open[1:]]}"
    (top,) = walk.open[0].children
    elements = top.all()
    ids = [identity for element in elements if (identity := element.attributes.get("id")) is not None]
    assert len(ids) == len(set(ids)), "an id is there twice"
    for element in elements:
        for name, value in element.attributes.items():
            value = value or ""
            assert not name.startswith("on"), f"<{element.name} {name}>"
            assert name != "style", f"<{element.name} style>: the page's policy forbids it"
            if name in LOADS:
                assert value.startswith(("data:", "#")), f"<{element.name} {name}={value[:60]}>"
                assert not value.startswith("#") or value[1:] in ids, f"{value} has no target"
            if name in REFERS:
                assert set(value.split()) <= set(ids), f"{name}={value} has no target"
        if element.name == "style":
            assert not re.search(r"url\(|@import|http", element.text)
        assert element.name not in ("iframe", "object", "embed", "base", "form", "img")
    return top
