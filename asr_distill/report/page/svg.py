"""One panel of a chart as inline SVG: axes, marks, lines. Colours are classes of the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from asr_distill.report.page.markup import Content, Html, join, tag
from asr_distill.report.page.scale import Axis

WIDTH = 400.0  # of every panel, in its own units; a phone shows it at about 9/10
LETTER = 7.3  # width of a letter, about: fonts differ
SHAPES = {  # about (0, 0): roles differ in shape, not in colour alone
    "gmm": "M-4 -4L4 4M-4 4L4 -4", "baseline": "M-4.5 -4.5H4.5V4.5H-4.5Z", "teacher": "M0 -5.5L5 4H-5Z",
    "ensemble": "M0 -6.5L6.5 0L0 6.5L-6.5 0Z", "student": "M-5.5 0A5.5 5.5 0 1 0 5.5 0A5.5 5.5 0 1 0 -5.5 0Z",
    "export": "M0 5.5L5 -4H-5Z"}


@dataclass
class Panel:
    """A chart being drawn; `x` and `y` are its axes, `rows` names in place of y's round values."""

    identity: str  # unique on the page
    title: str
    description: str  # the same for those who cannot see it
    x: Axis
    y: Axis | None = None
    rows: Sequence[str] = ()
    height: float = 290.0
    left: float = 52.0
    right: float = 14.0
    top: float = 8.0
    bottom: float = 42.0
    items: list[Html] = field(default_factory=list)

    def at_x(self, value: float) -> float:
        return round(self.x.place(value, self.left, WIDTH - self.right), 3)

    def at_y(self, value: float) -> float:
        """Of a value, or of a row's number where the panel has rows."""
        end, start = self.top, self.height - self.bottom
        if self.y is None:
            return round(end + (value + 0.5) * (start - end) / len(self.rows), 3)
        return round(self.y.place(value, start, end), 3)

    def mark(self, x: float, y: float, role: str, name: str, tip: str, *, hollow: bool = False) -> None:
        """A role's mark on a value; `name` of what it stands for, `tip` shown under the pointer."""
        self.items.append(tag(
            "path", tag("title", tip), d=SHAPES[role], transform=f"translate({self.at_x(x)} {self.at_y(y)})",
            class_=f"mark role-{role}{' hollow' if hollow else ''}", data_name=name))

    def line(self, points: Sequence[tuple[float, float]], role: str, name: str, kind: str = "line") -> None:
        """Through values, in order. `kind`: a class of the style sheet (line, dashed, whisker, even)."""
        path = "L".join(f"{self.at_x(x)} {self.at_y(y)}" for x, y in points)
        self.items.append(tag("path", tag("title", name), d=f"M{path}", class_=f"{kind} role-{role}", data_name=name))

    def words(self, x: float, y: float, words: Content, *, anchor: str = "start", class_: str = "") -> None:
        """Text at a place of the panel (not a value)."""
        self.items.append(tag("text", words, x=round(x, 2), y=round(y, 2), text_anchor=anchor, class_=class_ or None))

    def render(self) -> Html:
        heading = join(tag("title", self.title, id=f"{self.identity}-title"),
                       tag("desc", self.description, id=f"{self.identity}-desc"))
        drawn = tag("svg", heading, self._axes(), *self.items, viewBox=f"0 0 {WIDTH:g} {self.height:g}", role="img",
                    class_="chart", id=self.identity,
                    aria_labelledby=f"{self.identity}-title {self.identity}-desc")
        return tag("figure", tag("figcaption", self.title), drawn)

    def _axes(self) -> Html:
        base, end = self.height - self.bottom, WIDTH - self.right
        parts, taken = [], -LETTER
        for value in self.x.ticks():
            x, figure = self.at_x(value), self.x.show(value)
            half = LETTER * len(figure) / 2
            parts.append(tag("path", d=f"M{x} {self.top}V{base}", class_="grid"))
            if x - half >= taken + LETTER / 2 and x + half <= WIDTH:
                parts.append(tag("text", figure, x=x, y=base + 16, text_anchor="middle", class_="tick x"))
                taken = x + half
        parts.append(tag("text", self.x.label, x=(self.left + end) / 2, y=base + 34, text_anchor="middle",
                         class_="label"))
        if self.y is not None:
            for value in self.y.ticks():
                y = self.at_y(value)
                parts += [tag("path", d=f"M{self.left} {y}H{end}", class_="grid"),
                          tag("text", self.y.show(value), x=self.left - 6, y=round(y + 4, 3), text_anchor="end",
                              class_="tick y")]
        for number, name in enumerate(self.rows):
            parts.append(tag("text", name, x=self.left - 8, y=self.at_y(number) + 4, text_anchor="end"))
        parts.append(tag("path", d=f"M{self.left} {self.top}V{base}H{end}", class_="axis"))
        return join(*parts)


def key(role: str, *, hollow: bool = False) -> Html:
    """A role's mark for a legend or a table."""
    mark = tag("path", d=SHAPES[role], class_=f"mark role-{role}{' hollow' if hollow else ''}")
    return tag("svg", mark, viewBox="-8 -8 16 16", class_="key", aria_hidden="true")


def stroke(kind: str) -> Html:
    """A piece of line for a legend."""
    return tag("svg", tag("path", d="M0 8H28", class_=f"{kind} plain"), viewBox="0 0 28 16", class_="key wide",
               aria_hidden="true")


def legend(*entries: tuple[Html, str]) -> Html:
    """What marks and lines stand for: (key or stroke, words)."""
    return tag("ul", *(tag("li", mark, " ", words) for mark, words in entries), class_="legend")
