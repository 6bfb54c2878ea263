from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from asr_distill.acoustic.ensemble import mean_log_posteriors
from asr_distill.acoustic.losses import mean_over_rows
from asr_distill.distill.losses import (
    family_cross_entropy_rows,
    mixed_rows,
    soft_cross_entropy,
    soft_cross_entropy_rows,
    top_k_cross_entropy,
)

BATCH, PDFS = 9, 11


def case(seed: int = 0, temperature: float = 1.0,
         scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student logits, teacher posteriors at the temperature, pdf-ids; float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(BATCH, PDFS, dtype=torch.float64, generator=generator)
    teacher = scale * torch.randn(BATCH, PDFS, dtype=torch.float64, generator=generator)
    pdf_ids = torch.randint(0, PDFS, (BATCH,), generator=generator)
    return logits.requires_grad_(), (teacher / temperature).softmax(1), pdf_ids


def kept(probabilities: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    top, ids = probabilities.topk(k, 1)
    return ids, top, (1 - top.sum(1)).clamp(min=0)


def plain_soft(logits: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """Independent reference through autograd."""
    return -(target * (logits / temperature).log_softmax(1)).sum(1).mean() * temperature**2


def plain_top_k(logits: torch.Tensor, ids: torch.Tensor, top: torch.Tensor, rest: torch.Tensor, temperature: float,
                kind: str) -> torch.Tensor:
    scores = (logits / temperature).log_softmax(1)
    others = torch.ones_like(scores, dtype=torch.bool).scatter_(1, ids, False)
    fit = (top * scores.gather(1, ids)).sum(1)
    if kind == "lumped":
        fit = fit + rest * torch.stack([row[mask].exp().sum().log() for row, mask in zip(scores, others, strict=True)])
    else:
        fit = fit + rest * torch.stack([row[mask].mean() for row, mask in zip(scores, others, strict=True)])
    return -fit.mean() * temperature**2


def assert_equal_with_gradient(ours: torch.Tensor, reference: torch.Tensor, logits: torch.Tensor) -> None:
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(reference, logits)[0])


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("hard_weight", [0.0, 0.5])
@pytest.mark.parametrize("block", [0, 1, 4])
def test_full_equals_autograd(temperature: float, hard_weight: float, block: int) -> None:
    logits, target, pdf_ids = case(temperature=temperature)
    ours = soft_cross_entropy(logits, target, temperature, pdf_ids=pdf_ids, hard_weight=hard_weight, block=block)
    reference = plain_soft(logits, target, temperature) + hard_weight * cross_entropy(logits, pdf_ids)
    assert_equal_with_gradient(ours, reference / (1 + hard_weight), logits)


@pytest.mark.parametrize("kind", ["lumped", "uniform"])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("k", [1, 4, PDFS - 1])
@pytest.mark.parametrize("hard_weight, block", [(0.0, 0), (0.5, 4)])
def test_top_k_equals_autograd(kind: str, temperature: float, k: int, hard_weight: float, block: int) -> None:
    logits, target, pdf_ids = case(temperature=temperature)
    ids, top, rest = kept(target, k)
    ours = top_k_cross_entropy(logits, ids, top, rest, temperature, kind=kind, pdf_ids=pdf_ids,  # type: ignore[arg-type]
                               hard_weight=hard_weight, block=block)
    reference = (plain_top_k(logits, ids, top, rest, temperature, kind)
                 + hard_weight * cross_entropy(logits, pdf_ids)) / (1 + hard_weight)
    assert_equal_with_gradient(ours, reference, logits)


@pytest.mark.parametrize("kind", ["lumped", "uniform"])
def test_gradcheck(kind: str) -> None:
    logits, target, _ = case(temperature=2.0)
    ids, top, rest = kept(target, 3)
    assert torch.autograd.gradcheck(
        lambda z: top_k_cross_entropy(z, ids, top, rest, 2.0, kind=kind), (logits,))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lumped", "uniform"])
def test_all_kept_equals_full(kind: str) -> None:
    logits, target, _ = case(temperature=2.0)
    ids, top, rest = kept(target, PDFS)
    ours = top_k_cross_entropy(logits, ids, top, rest + 1e-4, 2.0, kind=kind)  # type: ignore[arg-type]  # float16's error
    assert_equal_with_gradient(ours, soft_cross_entropy(logits, target, 2.0), logits)


@pytest.mark.parametrize("kind", ["lumped", "uniform"])
def test_one_hot_at_temperature_one_is_plain_cross_entropy(kind: str) -> None:
    logits, _, pdf_ids = case()
    one_hot = torch.nn.functional.one_hot(pdf_ids, PDFS).double()
    assert_equal_with_gradient(soft_cross_entropy(logits, one_hot, 1.0), cross_entropy(logits, pdf_ids), logits)
    ours = top_k_cross_entropy(logits, pdf_ids[:, None], torch.ones(BATCH, 1), torch.zeros(BATCH), kind=kind)  # type: ignore[arg-type]
    assert_equal_with_gradient(ours, cross_entropy(logits, pdf_ids), logits)


def test_high_temperature_matches_logits() -> None:
    """Paper, section 2.1: T^2 dC/dz -> (z - v) / N for logits with zero mean."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(BATCH, PDFS, dtype=torch.float64, generator=generator) for _ in range(2))
    student, teacher = ((z - z.mean(1, keepdim=True)) for z in (student, teacher))
    student.requires_grad_()
    temperature = 1e4
    loss = soft_cross_entropy(student, (teacher / temperature).softmax(1), temperature)
    expected = (student - teacher).detach() / PDFS / BATCH
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], expected, rtol=1e-3, atol=1e-6)


def test_lumped_is_a_lower_bound_with_the_same_minimum() -> None:
    logits, target, _ = case()
    ids, top, rest = kept(target, 3)
    assert top_k_cross_entropy(logits, ids, top, rest) < soft_cross_entropy(logits, target)
    perfect = target.log().requires_grad_()
    gradient = torch.autograd.grad(top_k_cross_entropy(perfect, ids, top, rest), perfect)[0]
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("kind", ["lumped", "uniform"])
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_students_stay_finite(kind: str, sign: int) -> None:
    """The kept pdfs have all of the student's mass, or none of it."""
    logits = torch.zeros(2, PDFS)
    logits[:, :3] = sign * 1e3
    logits.requires_grad_()
    ids = torch.arange(3).expand(2, 3)
    loss = top_k_cross_entropy(logits, ids, torch.full((2, 3), 0.3), torch.full((2,), 0.1), kind=kind)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    if kind == "lumped":
        torch.testing.assert_close(gradient.sum(1), torch.zeros(2), rtol=0, atol=1e-4)


def test_hard_weight_needs_pdf_ids() -> None:
    logits, target, _ = case()
    with pytest.raises(ValueError, match="needs pdf_ids"):
        soft_cross_entropy(logits, target, hard_weight=0.5)


@pytest.mark.parametrize("block", [0, 4])
def test_frames_without_a_senone_have_no_hard_loss(block: int) -> None:
    logits, target, pdf_ids = case(temperature=2.0)
    known = torch.arange(BATCH) % 3 > 0
    ours = soft_cross_entropy(logits, target, 2.0, pdf_ids=torch.where(known, pdf_ids, -1), hard_weight=0.7,
                              block=block)
    hard = cross_entropy(logits[known], pdf_ids[known], reduction="sum") / BATCH
    assert_equal_with_gradient(ours, (plain_soft(logits, target, 2.0) + 0.7 * hard) / 1.7, logits)


def family(temperature: float, rank: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student logits, codes, vectors and the posteriors softmax(codes @ vectors) at the temperature; float64."""
    logits, _, pdf_ids = case(temperature=temperature)
    generator = torch.Generator().manual_seed(5)
    codes = torch.randn(BATCH, rank, dtype=torch.float64, generator=generator)
    vectors = torch.randn(rank, PDFS, dtype=torch.float64, generator=generator)
    return logits, codes, vectors, pdf_ids


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("hard_weight", [0.0, 0.5])
@pytest.mark.parametrize("block", [0, 1, 4])
def test_family_equals_autograd(temperature: float, hard_weight: float, block: int) -> None:
    logits, codes, vectors, pdf_ids = family(temperature)
    rows = mixed_rows(family_cross_entropy_rows(codes, vectors, temperature), pdf_ids, hard_weight)
    target = (codes @ vectors).softmax(1)
    reference = plain_soft(logits, target, temperature) + hard_weight * cross_entropy(logits, pdf_ids)
    assert_equal_with_gradient(mean_over_rows(logits, rows, block), reference / (1 + hard_weight), logits)


def test_family_gradcheck() -> None:
    logits, codes, vectors, _ = family(2.0)
    assert torch.autograd.gradcheck(
        lambda z: mean_over_rows(z, family_cross_entropy_rows(codes, vectors, 2.0), 4), (logits,))


@pytest.mark.parametrize("form", ["family", "top_k"])
def test_high_temperature_matches_logits_in_every_form(form: str) -> None:
    """As above, the targets given by codes, and by all but one of the pdfs and the mass of the last."""
    temperature = 1e3
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(BATCH, PDFS, dtype=torch.float64, generator=generator) for _ in range(2))
    student, teacher = ((z - z.mean(1, keepdim=True)) for z in (student, teacher))
    student.requires_grad_()
    if form == "family":
        rows = family_cross_entropy_rows(teacher / temperature, torch.eye(PDFS, dtype=torch.float64), temperature)
        loss = mean_over_rows(student, rows)
    else:
        loss = top_k_cross_entropy(student, *kept((teacher / temperature).softmax(1), PDFS - 1), temperature)
    expected = (student - teacher).detach() / PDFS / BATCH
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], expected, rtol=1e-2, atol=1e-5)


def teachers(temperature: float) -> tuple[list[torch.Tensor], list[float]]:
    generator = torch.Generator().manual_seed(2)
    logits = [3 * torch.randn(BATCH, PDFS, dtype=torch.float64, generator=generator) for _ in range(3)]
    return [(z / temperature).log_softmax(1) for z in logits], [1.0, 0.5, 2.0]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_arithmetic_mean_of_weighted_teachers_is_the_weighted_mean_of_their_losses(temperature: float) -> None:
    logits, _, _ = case()
    each, weights = teachers(temperature)
    mean = mean_log_posteriors(each, "arithmetic", weights)
    ours = mean_over_rows(logits, soft_cross_entropy_rows(mean.exp(), temperature))
    parts = [weight * plain_soft(logits, one.exp(), temperature) for weight, one in zip(weights, each, strict=True)]
    assert_equal_with_gradient(ours, torch.stack(parts).sum() / sum(weights), logits)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_geometric_mean_of_weighted_teachers_is_the_softmax_of_their_mean_logits(temperature: float) -> None:
    logits, _, _ = case()
    each, weights = teachers(temperature)
    mean = mean_log_posteriors(each, "geometric", weights)
    average = sum(weight * one for weight, one in zip(weights, each, strict=True)) / sum(weights)
    assert isinstance(average, torch.Tensor)
    ours = mean_over_rows(logits, soft_cross_entropy_rows(mean.exp(), temperature))
    assert_equal_with_gradient(ours, plain_soft(logits, average.softmax(1), temperature), logits)
