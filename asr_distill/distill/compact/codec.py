"""From posteriors to rows of bytes and back: a basis and its quantiser, fitted on a pilot of the frames."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr_distill.distill.compact.basis import LogitBasis, Principal, fit_basis
from asr_distill.distill.compact.projection import project
from asr_distill.distill.compact.quantiser import Quantiser
from asr_distill.errors import UserError
from asr_distill.files import read_array, read_json, write_array, write_json

BLOCK = 1024  # frames encoded at once
SAMPLE = 16384  # frames that the range of levels is taken from
BYTES_STEP = 8  # sizes of a row that are tried differ by so much
WORTH = 2.0  # bits that a code must get to be kept
RANGE = 8.0  # standard deviations that the levels of a code span, about
log = logging.getLogger("asr_distill")


@dataclass(frozen=True)
class Codec:
    """`encode` and `decode` posteriors at the temperature that the codec was fitted at."""

    basis: LogitBasis
    quantiser: Quantiser

    @property
    def num_bytes(self) -> int:
        """Of a frame."""
        return self.quantiser.num_bytes

    def encode(self, log_posteriors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows uint8 (frames, num_bytes) of log_posteriors (frames, pdfs); float32 (frames,): KL(theirs, decoded)."""
        rows, nats = [], []
        for part in log_posteriors.split(BLOCK):
            found = project(self.basis, part, self.basis.linear_codes(part))
            levels = self.quantiser.levels(found.codes, found.factors)
            decoded = self.basis.log_posteriors(self.quantiser.codes(levels))
            rows.append(self.quantiser.pack(levels))
            nats.append((part.exp() * (part - decoded)).sum(1))
        return torch.cat(rows), torch.cat(nats)

    def decode(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-posteriors float32 (frames, pdfs)."""
        return self.basis.log_posteriors(self.quantiser.codes(self.quantiser.unpack(rows)))

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """mean (pdfs,) and vectors (rank, pdfs) such that log q = log softmax(mean + levels @ vectors)."""
        basis, quantiser = self.basis, self.quantiser
        return (torch.addmv(basis.mean, basis.vectors, quantiser.low),
                (basis.vectors * quantiser.step).T.contiguous())

    def save(self, directory: Path) -> None:
        """Write basis_mean.npy, basis_vectors.npy, frequencies.npy and, last, codec.json."""
        for name, value in (("basis_mean", self.basis.mean), ("basis_vectors", self.basis.vectors),
                            ("frequencies", self.basis.frequencies)):
            write_array(directory / f"{name}.npy", value.cpu().numpy())
        write_json(directory / "codec.json", {
            "bits": list(self.quantiser.bits), "low": self.quantiser.low.tolist(),
            "step": self.quantiser.step.tolist()})

    @staticmethod
    def load(directory: Path, device: torch.device) -> Codec:
        """Raises UserError where a file is missing or damaged, or they do not belong together."""
        facts = read_json(directory / "codec.json")
        arrays = [torch.from_numpy(read_array(directory / f"{name}.npy")).to(device)
                  for name in ("basis_mean", "basis_vectors", "frequencies")]
        try:
            low, step = (torch.tensor(facts[name], dtype=torch.float32, device=device) for name in ("low", "step"))
            quantiser = Quantiser(low, step, tuple(int(bits) for bits in facts["bits"]))
            basis = LogitBasis(*arrays)
            if not (len(low) == len(step) == len(quantiser.bits) == basis.rank) or \
                    not len(basis.mean) == len(basis.vectors) == len(basis.frequencies):
                raise ValueError("basis and codec.json differ")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{directory}: damaged soft targets ({error}); write them again") from None
        return Codec(basis, quantiser)


def fit_codec(pilot: torch.Tensor, check: torch.Tensor, max_error: float,
              max_bytes: int) -> tuple[Codec, dict[str, Any]]:
    """The codec of fewest bytes whose mean divergence on `check` is at most max_error nats, or that of max_bytes.

    pilot and check: log-posteriors (frames, pdfs) of different utterances. Sizes are tried in steps of 8 bytes, and the
    figures have each.
    """
    pdfs = pilot.shape[1]
    principal = Principal.of(pilot, min(2 * max_bytes, pdfs - 1, len(pilot) - 1))
    best = _of_size(pilot, check, principal, max_bytes)
    tried = {max_bytes: best[1]}
    low, high = 0, -(-max_bytes // BYTES_STEP)  # of these `high` reaches max_error, where any does
    while best[1] <= max_error and high - low > 1:
        middle = (low + high) // 2
        codec, nats = _of_size(pilot, check, principal, middle * BYTES_STEP)
        tried[middle * BYTES_STEP] = nats
        if nats <= max_error:
            best, high = (codec, nats), middle
        else:
            low = middle
    codec, nats = best
    log.info("soft targets: %d codes in %d bytes a frame, %.5f nats on held-out frames (asked for %g)",
             codec.basis.rank, codec.num_bytes, nats, max_error)
    if nats > max_error:
        log.warning("soft targets: %d bytes a frame reach %.5f nats, not %g: for less error raise "
                    "distill.store.max_bytes", codec.num_bytes, nats, max_error)
    return codec, {"check_nats": nats, "tried": {str(size): tried[size] for size in sorted(tried)}}


def _of_size(pilot: torch.Tensor, check: torch.Tensor, principal: Principal, num_bytes: int) -> tuple[Codec, float]:
    basis = fit_basis(pilot, principal.basis(rank_for(principal.scales, num_bytes)))
    sample = pilot[:: max(1, len(pilot) // SAMPLE)]
    codes = torch.cat([project(basis, part, basis.linear_codes(part)).codes for part in sample.split(BLOCK)])
    codec = Codec(basis, Quantiser.fit(codes, num_bytes))
    _, nats = codec.encode(check)
    return codec, float(nats.double().mean())


def rank_for(scales: torch.Tensor, num_bytes: int) -> int:
    """How many codes get WORTH bits or more where a frame's bits are shared out by reverse water-filling.

    scales: standard deviations of the codes, falling.
    """
    widths = (scales * RANGE).log2().tolist()
    for rank in range(min(len(widths), 8 * num_bytes), 1, -1):
        step = (sum(widths[:rank]) - 8 * num_bytes) / rank  # its log2, common to all codes
        if widths[rank - 1] - step >= WORTH:
            return rank
    return 1
