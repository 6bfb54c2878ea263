"""Names beside the points of a chart, none over another."""

from __future__ import annotations

from collections.abc import Sequence

from asr_distill.report.page.svg import LETTER

Box = tuple[float, float, float, float]  # left, top, right, bottom
HEIGHT, AWAY, POINT = 13.0, 10.0, 6.0


def place(points: Sequence[tuple[float, float]], names: Sequence[str], bounds: Box) -> list[tuple[float, float] | None]:
    """Left ends of the names' baselines, or None where a name has no room; names that come first choose first."""
    taken: list[Box] = [(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points]
    found: list[tuple[float, float] | None] = []
    for (x, y), name in zip(points, names, strict=True):
        width = LETTER * len(name)
        right, left, middle, above, below = x + AWAY, x - AWAY - width, x - width / 2, y - AWAY, y + AWAY + 9
        beside = [(right, y + 4), (left, y + 4), (middle, above), (middle, below), (x + 4, above), (x + 4, below),
                  (x - 4 - width, above), (x - 4 - width, below)]
        free = next((corner for corner in beside if _free(_box(corner, width), taken, bounds)), None)
        found.append(free)
        if free:
            taken.append(_box(free, width))
    return found


def _box(corner: tuple[float, float], width: float) -> Box:
    x, y = corner
    return x, y - HEIGHT + 3, x + width, y + 3


def _free(box: Box, taken: Sequence[Box], bounds: Box) -> bool:
    left, top, right, bottom = box
    inside = left >= bounds[0] and top >= bounds[1] and right <= bounds[2] and bottom <= bounds[3]
    return inside and all(right <= other[0] or left >= other[2] or bottom <= other[1] or top >= other[3]
                          for other in taken)
