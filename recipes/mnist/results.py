"""What the recipe mnist ends in: RESULTS.json, RESULTS.md, RESULTS.txt and the plot of errors against temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.files import read_array, write_text
from asr_distill.report.figures import ABSENT, number, p_value
from asr_distill.report.plots import COLOURS, figure
from asr_distill.report.results import ErrorScores, Results, Role, SplitData, SplitScores, System
from asr_distill.report.tables import provenance, stage_table, table
from local.mnist import DIGITS
from recipes.mnist.settings import SweepGroup

Figures = Mapping[str, Any]  # of one network
ROLES: dict[str, Role] = {"large": "teacher", "small_plain": "baseline"}
CORRECTED = "corrected"
LEFT_OUT = 3  # the digit whose errors the paper tells apart


def write_results(out: Path, recipe: str, *, data: Mapping[str, Any], soft: Mapping[str, Any],
                  stages: Mapping[str, Mapping[str, Figures]], folders: Mapping[str, Path], labels: np.ndarray,
                  groups: Mapping[str, SweepGroup], seeds: Sequence[int], settings: Mapping[str, Any], device: str,
                  seconds: Mapping[str, float], command: str) -> None:
    """Write all of it into `out`. `stages`: by stage, each network's figures; `folders`: where the networks are;
    `labels`: of the test images; `seconds`: of all stages."""
    splits = {name: SplitData(None, facts["images"], None, None) for name, facts in data.items()}
    threes = f"test_{LEFT_OUT}s"
    splits[threes] = SplitData(None, data["test"]["by_digit"][LEFT_OUT], None, None)
    if held := _heldout(stages):
        splits["heldout"] = SplitData(None, held, None, None)
    systems = [system for stage, networks in stages.items() for system in _systems(stage, networks, threes)]
    results = Results.of_now(recipe, device=device, seeds=seeds, settings=settings, data=splits, systems=systems,
                             stages=seconds)
    plot_temperatures(stages["sweep"], groups, seeds, out / "temperature.png")
    summary = summary_table(stages, data["test"]["images"])
    write_text(out / "RESULTS.txt", f"{recipe}: errors on {data['test']['images']:,} test images\n\n{summary}")
    write_text(out / "RESULTS.md", "\n\n".join([
        f"# Results: {recipe}",
        f"Errors on {data['test']['images']:,} test images, mean of {len(seeds)} seed{'s' * (len(seeds) > 1)} and "
        "each of them. Paper: Hinton, Vinyals, Dean 2015, section 3.", summary,
        "Biases were chosen on training images that the students had not seen, not on test images as in the paper.",
        "\n".join(f"- {sentence}" for sentence in comparisons(folders, labels, seeds)),
        "## Errors by temperature", sweep_table(stages["sweep"], groups, seeds),
        "![Errors against temperature](temperature.png)",
        "## The large nets' posteriors on the training images", soft_table(soft),
        "## How it was made", provenance(results, command), stage_table(results)]) + "\n")
    results.write(out / "RESULTS.json")


def summary_table(stages: Mapping[str, Mapping[str, Figures]], images: int) -> str:
    """The paper's figures and ours."""
    rows = []

    def row(title: str, paper: str, values: Sequence[float], digits: int = 0, unit: str = "") -> None:
        rows.append([title, paper, f"{np.mean(values):.{max(digits, 1)}f}{unit}",
                     ", ".join(f"{value:.{digits}f}" for value in values)])

    row("large net", "67", _errors(stages["large"]))
    row("small net, plain", "146", _errors(stages["small_plain"]))
    row("small net, distilled", "74", _errors(stages["distilled"]))
    without = stages["without_3s"]
    row("small net, distilled without 3s", "206", _errors(without))
    row("- of these on 3s", "133", _errors(without, digit=LEFT_OUT))
    row("- with the bias of 3 corrected", "109", _errors(without, CORRECTED))
    row("- of these on 3s", "14", _errors(without, CORRECTED, LEFT_OUT))
    row("- added to the bias", "+3.5", [found["bias"] for found in without.values()], 2)
    only = stages["only_7s_8s"]
    before, after = ([100 * value / images for value in _errors(only, splits)] for splits in ("splits", CORRECTED))
    row("small net, distilled on 7s and 8s alone", "47.3 %", before, 2, " %")
    row("- with the biases of 7 and 8 corrected", "13.2 %", after, 2, " %")
    row("- added to the biases", "-7.6", [found["bias"] for found in only.values()], 2)
    return table(["network", "paper", "mean", "each seed"], rows, left=1)


def sweep_table(networks: Mapping[str, Figures], groups: Mapping[str, SweepGroup], seeds: Sequence[int]) -> str:
    """Mean errors, and those of each seed, by target and group."""
    temperatures = sorted({value for group in groups.values() for value in group.temperatures})
    rows = []
    for title, kind in [("labels", "plain"), *((f"T = {value:g}", f"T{value:g}") for value in temperatures)]:
        row = [title]
        for name in groups:
            values = [_test_errors(networks[f"{name}_{kind}_{seed}"]) for seed in seeds
                      if f"{name}_{kind}_{seed}" in networks]
            row.append(f"{np.mean(values):.1f} ({', '.join(map(str, values))})" if values else ABSENT)
        rows.append(row)
    return table(["targets", *(f"{name} ({group.network.width} units)" for name, group in groups.items())], rows,
                 left=1)


def soft_table(soft: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """How soft the posteriors are at each temperature, mean over the nets."""
    rows = [[f"T = {temperature}", *(number(float(np.mean([net[temperature][key] for net in soft.values()])), 3)
                                     for key in ("entropy", "greatest"))]
            for temperature in next(iter(soft.values()))]
    return table(["temperature", "entropy (nats)", "greatest probability"], rows, left=1)


def comparisons(folders: Mapping[str, Path], labels: np.ndarray, seeds: Sequence[int]) -> list[str]:
    """Paired tests of the distilled net against the plain one and against its teacher."""
    sentences = []
    for other, title in (("small_plain", "the plain net"), ("large", "the large net")):
        for seed in seeds:
            wrong, other_wrong = (
                read_array(folders[stage] / f"{stage}_{seed}" / "test_logits.npy").argmax(1) != labels
                for stage in ("distilled", other))
            ours, theirs = int((wrong & ~other_wrong).sum()), int((other_wrong & ~wrong).sum())
            sentences.append(f"Distilled against {title}, seed {seed}: {ours} images that it alone gets wrong, "
                             f"{theirs} that the other alone does; exact sign test {p_value(sign_test(ours, theirs))}.")
    return sentences


def sign_test(a: int, b: int) -> float:
    """Two-sided p of a against b where each of the a + b is as likely to be the one as the other (McNemar, exact)."""
    count = a + b
    tail = sum(math.comb(count, value) for value in range(min(a, b) + 1)) / 2**count
    return min(1.0, 2 * tail)


def plot_temperatures(networks: Mapping[str, Figures], groups: Mapping[str, SweepGroup], seeds: Sequence[int],
                      path: Path) -> None:
    """A panel a group: errors of each seed and their mean against T; the mean of nets on labels as a dashed line."""
    with figure(path, 1, len(groups), (1 + 5.2 * len(groups), 4.4)) as axes:
        for panel, (name, group) in zip(axes, groups.items(), strict=True):
            ordered = sorted(group.temperatures)
            errors = np.array([[_test_errors(networks[f"{name}_T{value:g}_{seed}"]) for value in ordered]
                               for seed in seeds])  # (seeds, temperatures)
            plain = np.mean([_test_errors(networks[f"{name}_plain_{seed}"]) for seed in seeds])
            panel.axhline(plain, color=COLOURS["baseline"], linestyle="--", label="on labels, mean")
            for row in errors:
                panel.plot(ordered, row, "o", color=COLOURS["student"], alpha=0.35, markersize=5)
            panel.plot(ordered, errors.mean(0), color=COLOURS["student"], linewidth=2.2, label="distilled, mean")
            panel.set_xscale("log")
            panel.set_xticks(ordered, [f"{value:g}" for value in ordered])
            panel.minorticks_off()
            panel.set_title(f"Errors, 2 x {group.network.width} units" if group.network.layers == 2 else name)
            panel.set_xlabel("temperature")
            panel.legend(loc="best")


def _systems(stage: str, networks: Mapping[str, Figures], threes: str) -> list[System]:
    """Lines of RESULTS.json; a net whose bias was corrected has a second one."""
    found = []
    for name, figures in networks.items():
        role = ROLES.get(stage, "baseline" if "_plain_" in name else "student")
        base, _, seed = name.rpartition("_")
        for title, splits in ((name, figures["splits"]), (f"{base}_{CORRECTED}_{seed}", figures.get(CORRECTED))):
            if splits:
                scores: dict[str, SplitScores | ErrorScores] = {
                    split: _scores(errors["errors"], errors["images"], errors["cross_entropy"])
                    for split, errors in splits.items()}
                test = splits["test"]
                if stage == "without_3s":
                    scores[threes] = _scores(test["by_digit"][LEFT_OUT], None, None)
                found.append(System(title, role, figures["parameters"], figures["bytes"], DIGITS, scores))
    return found


def _scores(errors: int, images: int | None, cross_entropy: float | None) -> ErrorScores:
    accuracy = None if images is None else round(100 * (1 - errors / images), 4)
    return ErrorScores(accuracy, None if cross_entropy is None else round(cross_entropy, 5), errors)


def _heldout(stages: Mapping[str, Mapping[str, Figures]]) -> int:
    return max((splits["heldout"]["images"] for networks in stages.values() for figures in networks.values()
                if "heldout" in (splits := figures["splits"])), default=0)


def _test_errors(figures: Figures) -> int:
    return figures["splits"]["test"]["errors"]


def _errors(networks: Mapping[str, Figures], splits: str = "splits", digit: int | None = None) -> list[int]:
    """Of every network, on the test images: all errors, or those on one digit."""
    tests = [figures[splits]["test"] for figures in networks.values()]
    return [test["errors"] if digit is None else test["by_digit"][digit] for test in tests]
