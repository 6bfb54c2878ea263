"""The compact form against direct minimisation, brute-force packing, and the posteriors themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_distill_soft_store import CPU, PDFS, full_posteriors, world

from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.distill.compact.basis import LogitBasis, Principal, fit_basis
from asr_distill.distill.compact.codec import fit_codec
from asr_distill.distill.compact.projection import project, second_derivatives
from asr_distill.distill.compact.quantiser import Quantiser
from asr_distill.distill.compact.store import CompactStore
from asr_distill.distill.compact.targets import CompactTargets
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.losses import soft_cross_entropy
from asr_distill.distill.soft_store import open_soft_targets
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.distill.targets import SoftTargets
from asr_distill.errors import UserError

CONFIG = SoftTargetConfig(temperature=2.0, form="compact", max_error=0.01, max_bytes=40, pilot_frames=600,
                          shard_frames=100)


def family(frames: int = 200, pdfs: int = 30, rank: int = 4, noise: float = 0.0,
           seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-posteriors near an exponential family; its mean and vectors."""
    generator = torch.Generator().manual_seed(seed)
    mean, vectors = torch.randn(pdfs, generator=generator), torch.randn(pdfs, rank, generator=generator)
    scores = mean + torch.randn(frames, rank, generator=generator) @ vectors.T
    return (scores + noise * torch.randn(frames, pdfs, generator=generator)).log_softmax(1), mean, vectors


def divergence(log_posteriors: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    return (log_posteriors.exp() * (log_posteriors - decoded)).sum(1)


def test_projection_is_the_nearest_member() -> None:
    """Moments agree, and no gradient descent in float64 finds a nearer one."""
    log_posteriors, mean, vectors = family(noise=0.5)
    basis = LogitBasis(mean, vectors, log_posteriors.exp().mean(0))
    found = project(basis, log_posteriors, basis.linear_codes(log_posteriors))
    found = project(basis, log_posteriors, found.codes)
    decoded = basis.log_posteriors(found.codes)
    torch.testing.assert_close(decoded.exp() @ vectors, log_posteriors.exp() @ vectors, atol=1e-2, rtol=0)
    torch.testing.assert_close(found.nats, divergence(log_posteriors, decoded), atol=1e-5, rtol=0)
    codes = found.codes.double().requires_grad_()
    optimiser = torch.optim.LBFGS([codes], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        scores = (mean.double() + codes @ vectors.double().T).log_softmax(1)
        loss = divergence(log_posteriors.double(), scores).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert float(found.nats.sum()) <= float(closure().detach()) * (1 + 1e-3)


def test_second_derivatives_equal_autograd() -> None:
    log_posteriors, mean, vectors = family(frames=3)
    basis = LogitBasis(mean, vectors, log_posteriors.exp().mean(0))
    factors = second_derivatives(basis, log_posteriors.exp())
    for row, factor in zip(log_posteriors, factors, strict=True):
        p = row.exp()
        expected = torch.autograd.functional.hessian(
            lambda c, row=row: torch.logsumexp(row + vectors @ c, 0), torch.zeros(4))
        torch.testing.assert_close(factor @ factor.T, expected, rtol=0.02, atol=0.01)
        assert p.sum() == pytest.approx(1, abs=1e-5)


def test_fitted_basis_finds_the_family_and_keeps_its_promises() -> None:
    log_posteriors, _, _ = family(frames=2000)
    principal = Principal.of(log_posteriors, 4)
    basis = fit_basis(log_posteriors, principal.basis(4))
    found = project(basis, log_posteriors, basis.linear_codes(log_posteriors))
    assert float(found.nats.mean()) < 1e-4
    codes = found.codes
    covariance = torch.cov(codes.T)
    assert float(codes.mean(0).abs().max()) < 0.05 * float(codes.std())
    assert float((covariance - covariance.diag().diag()).abs().max()) < 0.05 * float(covariance.max())
    assert (covariance.diag().diff() <= 1e-3).all()
    fisher = torch.stack([factor @ factor.T for factor in second_derivatives(basis, log_posteriors.exp())]).mean(0)
    torch.testing.assert_close(fisher, torch.eye(4), atol=0.05, rtol=0)


def test_newton_steps_improve_on_principal_components() -> None:
    log_posteriors, _, _ = family(frames=1500, rank=12)
    held_out, _, _ = family(frames=1500, rank=12)
    principal = Principal.of(log_posteriors, 5)
    nats = []
    for basis in (principal.basis(5), fit_basis(log_posteriors, principal.basis(5))):
        nats.append(float(project(basis, held_out, basis.linear_codes(held_out)).nats.mean()))
    assert nats[1] < 0.9 * nats[0]


@pytest.mark.parametrize("bits", [(3, 5, 16, 1, 9), (8, 8), (1,) * 9, (11, 2, 13)])
def test_packing_equals_brute_force(bits: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.stack([torch.randint(0, 2**width, (50,), generator=generator) for width in bits], 1).int()
    quantiser = Quantiser(torch.zeros(len(bits)), torch.ones(len(bits)), bits)
    rows = quantiser.pack(levels)
    assert rows.dtype == torch.uint8 and rows.shape == (50, quantiser.num_bytes)
    for row, wanted in zip(rows.tolist(), levels.tolist(), strict=True):
        whole, at = int.from_bytes(bytes(row), "little"), 0
        for width, level in zip(bits, wanted, strict=True):
            assert (whole >> at) & (2**width - 1) == level
            at += width
    torch.testing.assert_close(quantiser.unpack(rows), levels)


def test_levels_make_up_for_each_other() -> None:
    """Less error under the metric than rounding each code for itself, and the same where the metric is the identity."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(400, 6, generator=generator)
    quantiser = Quantiser(torch.full((6,), -6.0), torch.full((6,), 0.4), (5,) * 6)
    rounded = ((codes + 6) / 0.4).round().int()
    plain = torch.eye(6).expand(400, 6, 6)
    torch.testing.assert_close(quantiser.levels(codes, plain), rounded)
    factors = torch.randn(400, 6, 6, generator=generator).tril()
    factors.diagonal(dim1=1, dim2=2).abs_().add_(0.3)

    def cost(levels: torch.Tensor) -> float:
        error = codes - quantiser.codes(levels)
        return float((factors.transpose(1, 2) @ error.unsqueeze(2)).square().sum())

    assert cost(quantiser.levels(codes, factors)) < 0.7 * cost(rounded)


def test_codec_takes_the_fewest_bytes_that_do() -> None:
    log_posteriors, _, _ = family(frames=3000, rank=8, noise=0.05)
    pilot, check = log_posteriors[:2500], log_posteriors[2500:]
    codec, figures = fit_codec(pilot, check, 0.01, 64)
    assert figures["check_nats"] <= 0.01 and codec.num_bytes < 32
    smaller = figures["tried"][str(codec.num_bytes - 8)] if codec.num_bytes > 8 else 1.0
    assert smaller > 0.01
    rows, nats = codec.encode(check)
    assert rows.shape == (500, codec.num_bytes)
    torch.testing.assert_close(nats, divergence(check, codec.decode(rows)), atol=1e-5, rtol=0)
    for dtype, most in ((torch.float32, 1e-6), (torch.bfloat16, 1e-4)):
        scores = codec.quantiser.wide_levels(rows, dtype) @ codec.folded(dtype)
        assert divergence(codec.decode(rows), scores.float().log_softmax(1)).mean() < most
    limited, figures = fit_codec(pilot, check, 1e-9, 8)
    assert limited.num_bytes == 8 and figures["check_nats"] > 1e-9


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_store_keeps_whole_posteriors(tmp_path: Path, mean: str) -> None:
    store, ensemble = world()
    ensemble = Ensemble(ensemble.models, mean)  # type: ignore[arg-type]
    figures = write_soft_targets(ensemble, store, tmp_path, CONFIG, CPU)
    soft = open_soft_targets(tmp_path)
    assert isinstance(soft, CompactStore) and soft.num_pdfs == PDFS
    full = full_posteriors(store, ensemble, 2.0, mean)
    stored = soft.posteriors(slice(None)).double().numpy()
    np.testing.assert_allclose(stored.sum(1), 1, atol=1e-5)
    excess = (full * (np.log(full) - np.log(stored))).sum(1).mean()
    assert figures["truncation_nats"] == pytest.approx(excess, rel=1e-2, abs=1e-6)
    assert excess < 0.03
    assert figures["bytes_per_frame"] == soft.codec.num_bytes <= 40
    assert figures["entropy_nats"] == pytest.approx(-(full * np.log(full)).sum(1).mean(), abs=1e-4)


@pytest.mark.parametrize("hard_weight", [0.0, 0.5])
def test_targets_equal_whole_posteriors(tmp_path: Path, hard_weight: float) -> None:
    store, ensemble = world()
    write_soft_targets(ensemble, store, tmp_path, CONFIG, CPU)
    pdf_ids = torch.randint(0, PDFS, (2 * store.num_frames,))
    rows = np.tile(np.arange(store.num_frames), 2)
    targets = SoftTargets.open(tmp_path, DistillConfig(hard_weight=hard_weight), pdf_ids, rows=rows).to(CPU)
    assert isinstance(targets, CompactTargets)
    frames = torch.tensor([3, 77, 3, store.num_frames + 5])
    stored = CompactStore.open(tmp_path).posteriors(slice(None))[frames % store.num_frames]
    logits = torch.randn(4, PDFS, dtype=torch.float64).requires_grad_()
    expected = soft_cross_entropy(logits, stored.double(), 2.0, pdf_ids=pdf_ids[frames], hard_weight=hard_weight)
    loss = targets.loss(logits, frames)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_interrupted_writer_keeps_its_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ensemble = world()
    expected = write_soft_targets(ensemble, store, tmp_path / "whole", CONFIG, CPU)
    ask, asked = Ensemble.log_posteriors, []

    def breaking(self: Ensemble, *arguments: object) -> torch.Tensor:
        asked.append(1)
        if len(asked) == limit:
            raise KeyboardInterrupt
        return ask(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Ensemble, "log_posteriors", breaking)
    limit = len(store.utterances) + 4  # the pilot is the whole of so small a store
    with pytest.raises(KeyboardInterrupt):
        write_soft_targets(ensemble, store, tmp_path / "killed", CONFIG, CPU)
    with pytest.raises(UserError, match=r"soft_targets\.json: no such file"):
        open_soft_targets(tmp_path / "killed")
    limit = 0
    asked.clear()
    figures = write_soft_targets(ensemble, store, tmp_path / "killed", CONFIG, CPU)
    assert len(asked) < len(store.utterances)
    assert {k: v for k, v in figures.items() if k != "frames_per_second"} == \
        {k: v for k, v in expected.items() if k != "frames_per_second"}
    for name in ("codes", "basis_mean", "basis_vectors"):
        assert (tmp_path / "killed" / f"{name}.npy").read_bytes() == (tmp_path / "whole" / f"{name}.npy").read_bytes()


def test_other_forms_and_mistakes(tmp_path: Path) -> None:
    store, ensemble = world()
    write_soft_targets(ensemble, store, tmp_path, CONFIG, CPU)
    figures = write_soft_targets(ensemble, store, tmp_path, replace(CONFIG, form="dense"), CPU)
    assert figures["bytes_per_frame"] == 2 * PDFS and figures["truncation_nats"] < 1e-5
    assert not (tmp_path / "codes.npy").exists()  # another form's: nothing is left of it
    full = torch.from_numpy(full_posteriors(store, ensemble, 2.0, "arithmetic"))
    targets = SoftTargets.open(tmp_path, DistillConfig(hard_weight=0), None)
    logits = torch.randn(5, PDFS, dtype=torch.float64)
    torch.testing.assert_close(targets.loss(logits, torch.arange(5)), soft_cross_entropy(logits, full[:5], 2.0),
                               rtol=1e-3, atol=1e-4)
    write_soft_targets(ensemble, store, tmp_path, CONFIG, CPU)
    np.save(tmp_path / "codes.npy", np.zeros((3, 8), np.uint8))
    with pytest.raises(UserError, match="damaged soft targets"):
        open_soft_targets(tmp_path)
    (tmp_path / "soft_targets.json").write_text('{"form": "holographic"}')
    with pytest.raises(UserError, match="'holographic', which this version does not know"):
        open_soft_targets(tmp_path)
    for settings in ({"max_error": 0}, {"max_bytes": 0}, {"pilot_frames": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            SoftTargetConfig(**settings)  # type: ignore[arg-type]
