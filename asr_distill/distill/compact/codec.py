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
from asr_distill.distill.forms import sound
from asr_distill.files import read_array, read_json, write_array, write_json

BLOCK = 1024  # frames encoded at once
SAMPLE = 4096  # frames that the range of levels is taken from
BYTES_STEP = 8  # sizes of a row that are tried differ by so much
BITS = (7.0, 6.0, 5.25, 4.5, 4.0)  # of a code, in the mean: tried from few codes to many
FEWEST_BITS = BITS[-1]
ROUNDS = 2  # of fitting the basis
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

    def folded(self, dtype: torch.dtype) -> torch.Tensor:
        """What `wide_levels` is multiplied with: log q = log softmax(wide_levels @ folded), (columns, pdfs) of `dtype`.

        bfloat16 tells 256 levels apart: codes of more bits have two columns, and so has the mean.
        """
        basis, quantiser = self.basis, self.quantiser
        vectors = (basis.vectors * quantiser.step).T  # (rank, pdfs)
        mean = torch.addmv(basis.mean, basis.vectors, quantiser.low).unsqueeze(0)
        rounded = mean.to(dtype)
        parts = [vectors.to(dtype), (256 * vectors[: quantiser.num_wide]).to(dtype), rounded,
                 (mean - rounded.float()).to(dtype)]
        return torch.cat(parts).contiguous()

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
        with sound(directory):
            low, step = (torch.tensor(facts[name], dtype=torch.float32, device=device) for name in ("low", "step"))
            quantiser = Quantiser(low, step, tuple(int(bits) for bits in facts["bits"]))
            basis = LogitBasis(*arrays)
            if not (len(low) == len(step) == len(quantiser.bits) == basis.rank) or \
                    not len(basis.mean) == len(basis.vectors) == len(basis.frequencies):
                raise ValueError("basis and codec.json differ")
        return Codec(basis, quantiser)


def fit_codec(pilot: torch.Tensor, check: torch.Tensor, max_error: float,
              max_bytes: int) -> tuple[Codec, dict[str, Any]]:
    """The codec of fewest bytes whose mean divergence on `check` is at most max_error nats, or that of max_bytes.

    pilot and check: log-posteriors (frames, pdfs) of different utterances. Sizes are tried in steps of 8 bytes. Among
    the figures: `check_nats`, and `tried`: the nats of each size before its basis was fitted for it.
    """
    search = CodecSearch(pilot, check, max_bytes)
    sizes = [*range(BYTES_STEP, max_bytes, BYTES_STEP), max_bytes]
    low, high = -1, len(sizes) - 1  # `low` misses max_error, `high` reaches it, where any does
    while high - low > 1 and search.nats(sizes[high]) <= max_error:
        middle = (low + high) // 2
        low, high = (low, middle) if search.nats(sizes[middle]) <= max_error else (middle, high)
    codec, nats = search.codec(sizes[high])
    log.info("soft targets: %d codes in %d bytes a frame, %.5f nats on held-out frames (asked for %g)",
             codec.basis.rank, codec.num_bytes, nats, max_error)
    if nats > max_error:
        log.warning("soft targets: %d bytes a frame reach %.5f nats, not %g: for less error raise "
                    "distill.store.max_bytes", codec.num_bytes, nats, max_error)
    return codec, {"check_nats": nats, "tried": {str(size): search.tried[size][1] for size in sorted(search.tried)}}


class CodecSearch:
    """Codecs of several sizes over the first codes of one basis, each with few and with many codes.

    pilot and check: log-posteriors (frames, pdfs) of different utterances.
    """

    def __init__(self, pilot: torch.Tensor, check: torch.Tensor, max_bytes: int):
        most = max(1, min(round(8 * max_bytes / FEWEST_BITS), pilot.shape[1] - 1, len(pilot) - 1))
        self.pilot, self.check = pilot, check
        self.basis = fit_basis(pilot, Principal.of(pilot, most).basis(most), ROUNDS)
        self.tried: dict[int, tuple[int, float]] = {}  # size -> codes, nats

    def nats(self, num_bytes: int) -> float:
        """Divergence on a sample of `check`, with the best number of codes."""
        if num_bytes not in self.tried:
            best = (0, float("inf"))
            for bits in BITS:
                rank = max(1, min(round(8 * num_bytes / bits), self.basis.rank))
                if rank == best[0]:
                    break
                _, nats = self._codec(self.basis.first(rank), num_bytes, _sample(self.check, SAMPLE // 4))
                if nats >= best[1]:
                    break
                best = (rank, nats)
            self.tried[num_bytes] = best
        return self.tried[num_bytes][1]

    def codec(self, num_bytes: int) -> tuple[Codec, float]:
        """The best codec of so many bytes, its basis fitted for its number of codes, and its nats on all of `check`."""
        self.nats(num_bytes)
        rank = self.tried[num_bytes][0]
        basis = self.basis if rank == self.basis.rank else fit_basis(self.pilot, self.basis.first(rank), 1)
        return self._codec(basis, num_bytes, self.check)

    def _codec(self, basis: LogitBasis, num_bytes: int, check: torch.Tensor) -> tuple[Codec, float]:
        codes = torch.cat([project(basis, part, basis.linear_codes(part)).codes
                           for part in _sample(self.pilot, SAMPLE).split(BLOCK)])
        codec = Codec(basis, Quantiser.fit(codes, num_bytes))
        return codec, float(codec.encode(check)[1].double().mean())


def _sample(rows: torch.Tensor, most: int) -> torch.Tensor:
    return rows[:: -(-len(rows) // most)]
