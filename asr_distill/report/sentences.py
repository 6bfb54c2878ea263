"""What the figures say, in sentences that claim no more than the tests allow."""

from __future__ import annotations

from asr_distill.report.figures import SIGNIFICANT, p_value
from asr_distill.report.results import RESCORED, Comparison, Results, System


def comparison_sentence(results: Results, comparison: Comparison) -> str:
    """One paired comparison; a difference that chance explains (p >= 0.05) is called that."""
    a = results.scores(comparison.a, comparison.split)
    b = results.scores(comparison.b, comparison.split)
    assert a is not None and b is not None and a.wer is not None and b.wer is not None
    assert b.wer_low is not None and b.wer_high is not None
    start = f"{comparison.a} against {comparison.b} on {comparison.split}: WER {a.wer:.2f} against {b.wer:.2f}"
    difference = comparison.wer_difference
    if a.wer == b.wer:
        return f"{start}: no difference ({p_value(comparison.p)})."
    change = f"{abs(difference):.2f} points {'lower' if difference < 0 else 'higher'}"
    inside = b.wer_low <= a.wer <= b.wer_high
    if comparison.p >= SIGNIFICANT:
        where = f", and inside the 95 % interval of {comparison.b}" if inside else ""
        return f"{start}, {change}; not significant ({p_value(comparison.p)}){where}: chance alone can explain it."
    verdict = "a significant improvement" if difference < 0 else "significantly worse"
    where = f", though inside the 95 % interval of {comparison.b}" if inside else ""
    return f"{start}, {change}; {verdict} by the paired test ({p_value(comparison.p)}){where}."


def gain_sentences(results: Results, student: System) -> list[str]:
    """How much of the ensemble's gain over the baseline the student kept, per split and measure.

    The paper's own yardstick (section 3: more than 80 % of the ensemble's gain in frame accuracy). A student that the
    large language model rescored is held against a baseline and an ensemble that it rescored too.
    """
    rescored = student.name.endswith(RESCORED)
    baselines, ensembles = ([system for system in results.with_role(role) if system.name.endswith(RESCORED) == rescored]
                            for role in ("baseline", "ensemble"))
    if not baselines or not ensembles:
        return []
    baseline, ensemble = baselines[0], ensembles[0]
    sentences = []
    for split in results.scored_splits():
        scores = [system.splits.get(split) for system in (baseline, ensemble, student)]
        accuracies = [item.frame_accuracy if item else None for item in scores]
        if sentence := _gain(student.name, f"Frame accuracy on {split}", accuracies, better=1):
            sentences.append(sentence)
        wers = [score.wer if score else None
                for score in (results.scores(system.name, split) for system in (baseline, ensemble, student))]
        if sentence := _gain(student.name, f"WER on {split}", wers, better=-1):
            p = _p_between(results, baseline.name, ensemble.name, split)
            if p is not None and p >= SIGNIFICANT:
                sentence += f" The ensemble's own gain is not significant ({p_value(p)}), so this share says little."
            sentences.append(sentence)
    return sentences


def export_sentences(results: Results, exported: System) -> list[str]:
    """How far the deployed form is from the student that it was made from (the one of equal parameters)."""
    student = next((system for system in results.with_role("student") if system.parameters == exported.parameters),
                   None)
    sentences = []
    for split in results.scored_splits() if student else []:
        assert student is not None
        own, original = results.scores(exported.name, split), results.scores(student.name, split)
        if own and original and own.wer is not None and original.wer is not None:
            sentences.append(f"{exported.name} (as deployed) on {split}: WER {own.wer:.2f}, {student.name} "
                             f"{original.wer:.2f}; {own.wer - original.wer:+.2f} points.")
    return sentences


def _gain(name: str, measure: str, values: list[float | None], *, better: int) -> str:
    """Baseline, ensemble, student -> the share kept, or that there was nothing to keep."""
    baseline, ensemble, student = values
    if baseline is None or ensemble is None or student is None:
        return ""
    figures = f"baseline {baseline:.2f}, ensemble {ensemble:.2f}, {name} {student:.2f} %"
    gain, kept = better * (ensemble - baseline), better * (student - baseline)
    if gain <= 0:
        return f"{measure}: the ensemble gained nothing over the baseline, so there was nothing to keep ({figures})."
    if kept < 0:
        return f"{measure}: {name} kept none of the ensemble's gain; it is worse than the baseline ({figures})."
    if kept > gain:
        return f"{measure}: {name} kept all of the ensemble's gain and more ({figures})."
    return f"{measure}: {name} kept {100 * kept / gain:.0f} % of the ensemble's gain ({figures})."


def _p_between(results: Results, first: str, second: str, split: str) -> float | None:
    return next((item.p for item in results.comparisons
                 if {item.a, item.b} == {first, second} and item.split == split), None)
