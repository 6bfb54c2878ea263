"""What a study file says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Measure = Literal["frame_accuracy", "cross_entropy", "wer", "errors", "train_accuracy", "heldout_accuracy",
                  "gain_frame_accuracy", "gain_wer", "recovered"]


@dataclass(frozen=True)
class PlotConfig:
    """One picture: a measure of some systems against an axis; a line for each system and value of the other axes."""

    x: str  # an axis, or `parameters`
    y: Measure
    systems: tuple[str, ...] = ()  # default: the first of each role (baseline, ensemble, student); of gains the student
    log: bool = False  # logarithmic x


@dataclass(frozen=True)
class StudyConfig:
    """A grid of settings over a recipe.

    An axis of `grid` is the dotted key of a setting with a list of its values, or a name of its own with named values,
    each a mapping of settings: `size: {small: {student.network.width: 128}, large: {...}}`. The points are the product
    of the axes, or of them and each of `points` (mappings of settings).
    """

    recipe: str = ""  # a name of `asr-distill recipes`, or a run.py
    about: str = ""  # one or two sentences for the report
    base: Path | None = None  # an experiment of this recipe: stages that a point does not change are taken from it
    conf: tuple[Path, ...] = ()  # settings files after the recipe's own and the base's (--conf)
    set: dict[str, Any] = field(default_factory=dict)  # dotted key -> value, at every point
    grid: dict[str, Any] = field(default_factory=dict)
    points: tuple[dict[str, Any], ...] = ()
    stages: tuple[str, ...] = ()  # what every point comes to, with all that these read; default: the recipe's last
    seeds: str = "student.seed"  # the axis that means and deviations are taken over
    reference: dict[str, Any] = field(default_factory=dict)  # axis -> value: whose baseline `recovered` is measured by
    plots: tuple[PlotConfig, ...] = ()

    def __post_init__(self) -> None:
        if not self.recipe:
            raise ValueError("name the recipe")
        if not self.grid and not self.points:
            raise ValueError("give a grid or points")
        for axis, values in self.grid.items():
            if not isinstance(values, (list, dict)) or not values:
                raise ValueError(f"grid.{axis} must be a list of values, or names with settings each")
            if isinstance(values, dict) and not all(isinstance(value, dict) and value for value in values.values()):
                raise ValueError(f"grid.{axis}: each named value must be a mapping of settings")
        axes = {*self.grid, *(key for point in self.points for key in point)}
        for plot in self.plots:
            if plot.x not in axes | {"parameters"}:
                raise ValueError(f"plots: x must be an axis ({', '.join(axes)}) or parameters, not {plot.x}")
        if unknown := set(self.reference) - axes:
            raise ValueError(f"reference: {unknown.pop()} is no axis ({', '.join(axes)})")
        if not self.reference and any(plot.y == "recovered" for plot in self.plots):
            raise ValueError("plots: recovered needs a reference")
