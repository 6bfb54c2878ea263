"""From values to places on a chart, and the round values that an axis names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

WIDE = 8.0  # values of a greater ratio than this are told apart on a logarithmic axis alone


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, and how their round ones are written."""

    label: str
    low: float
    high: float
    log: bool = False
    show: Callable[[float], str] = lambda value: f"{value:.6g}"

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"an axis cannot go from {self.low} to {self.high}")

    @staticmethod
    def around(values: Iterable[float], label: str, *, log: bool | None = None, least: float = -math.inf,
               show: Callable[[float], str] = lambda value: f"{value:.6g}", margin: float = 0.06) -> Axis:
        """An axis on which all values lie, with some room at both ends but not below `least`.

        `log` None: logarithmic where the values are of a ratio above WIDE. Raises ValueError where there are none.
        """
        values = list(values)
        low, high = min(values), max(values)
        if log is None:
            log = low > 0 and high / low > WIDE
        if log:
            room = margin * math.log(high / low) or 0.5
            return Axis(label, low * math.exp(-room), high * math.exp(room), True, show)
        room = margin * (high - low) or 0.05 * abs(high) or 1.0
        return Axis(label, max(low - room, least), high + room, False, show)

    def place(self, value: float, start: float, end: float) -> float:
        """Where the value lies between two places of the page, which stand for `low` and `high`."""
        low, high, value = (math.log(item) if self.log else item for item in (self.low, self.high, value))
        return start + (end - start) * (value - low) / (high - low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the axis: 1, 2 or 5 times a power of ten apart, or (logarithmic) those themselves."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = [digit * 10.0**power for power in range(first, last + 1) for digit in digits
                         if self.low <= digit * 10.0**power <= self.high]
                if 3 <= len(found) <= most:
                    return found
        for step in _steps((self.high - self.low) / most):
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            if last - first + 1 <= most:
                return [round(number * step, 12) for number in range(first, last + 1)]
        raise AssertionError("a wider step always fits")


def _steps(least: float) -> Iterable[float]:
    """1, 2, 5, 10 ... times a power of ten, from about `least` upward."""
    power = math.floor(math.log10(least))
    while True:
        yield from (digit * 10.0**power for digit in (1, 2, 5))
        power += 1
