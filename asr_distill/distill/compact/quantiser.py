"""Codes as whole numbers of few bits, side by side in the bytes of a row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

MOST_BITS = 16
SPREAD = 5e-4  # share of the codes beyond either end of the range of levels


@dataclass(frozen=True)
class Quantiser:
    """code[d] = low[d] + step[d] * level[d] with levels of bits[d] bits; low and step float32 (rank,).

    A row's bits follow one another from the lowest bit of its first byte on, codes in order.
    """

    low: torch.Tensor
    step: torch.Tensor
    bits: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return -(-sum(self.bits) // 8)

    @staticmethod
    def fit(codes: torch.Tensor, num_bytes: int) -> Quantiser:
        """Levels for codes (frames, rank), of which an equal error costs the same: each bit goes to the widest step."""
        low, high = (torch.quantile(codes, share, 0) for share in (SPREAD, 1 - SPREAD))
        width = (high - low).clamp_(min=1e-6)
        bits = [1] * len(width)
        steps = width.tolist()
        while sum(bits) < 8 * num_bytes:
            widest = max(range(len(bits)), key=steps.__getitem__)
            if bits[widest] == MOST_BITS:
                break
            bits[widest] += 1
            steps[widest] = float(width[widest]) / (2**bits[widest] - 1)
        return Quantiser(low, torch.tensor(steps, device=codes.device), tuple(bits))

    def levels(self, codes: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Nearest levels, int32 (frames, rank), under the metric L L^T of factors L (frames, rank, rank), lower.

        Each code makes up for the rounding of those after it (Babai's nearest plane).
        """
        most = self._most
        error = torch.zeros_like(codes)
        found = torch.zeros_like(codes)
        for at in reversed(range(codes.shape[1])):
            wanted = codes[:, at]
            if at + 1 < codes.shape[1]:
                owed = (factors[:, at + 1:, at] * error[:, at + 1:]).sum(1)
                wanted = wanted + owed / factors[:, at, at]
            level = ((wanted - self.low[at]) / self.step[at]).round_().clamp_(0, most[at])
            found[:, at] = level
            error[:, at] = codes[:, at] - (self.low[at] + self.step[at] * level)
        return found.int()

    def codes(self, levels: torch.Tensor) -> torch.Tensor:
        """float32 (frames, rank)."""
        return self.low + self.step * levels

    def pack(self, levels: torch.Tensor) -> torch.Tensor:
        """Levels (frames, rank) as rows uint8 (frames, num_bytes)."""
        number, place = self._bit_table(levels.device)
        ones = (levels[:, number] >> place) & 1  # (frames, bits)
        ones = torch.nn.functional.pad(ones, (0, 8 * self.num_bytes - ones.shape[1]))
        powers = torch.tensor([1 << bit for bit in range(8)], dtype=torch.int32, device=levels.device)
        return (ones.view(len(levels), self.num_bytes, 8) * powers).sum(2, dtype=torch.int32).to(torch.uint8)

    def unpack(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows uint8 (frames, num_bytes) as levels int32 (frames, rank)."""
        first, shift, mask = self._byte_table(rows.device)
        wide = torch.nn.functional.pad(rows, (0, 2)).int()  # a level of up to 16 bits lies in three bytes
        found = wide.index_select(1, first)
        found |= wide.index_select(1, first + 1) << 8
        found |= wide.index_select(1, first + 2) << 16
        return (found >> shift) & mask

    def wide_levels(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Rows as (frames, rank + num_wide + 2) of `dtype`, whose whole numbers up to 256 are exact: the levels' lower
        eight bits, the higher bits of the first `num_wide`, and twice 1.
        """
        levels = self.unpack(rows)
        wide = levels[:, : self.num_wide] >> 8
        ones = torch.ones(len(levels), 2, dtype=dtype, device=levels.device)
        return torch.cat([(levels & 255).to(dtype), wide.to(dtype), ones], 1)

    @property
    def num_wide(self) -> int:
        """The first so many codes hold all those of more than eight bits."""
        return max((number + 1 for number, bits in enumerate(self.bits) if bits > 8), default=0)

    @property
    def _most(self) -> list[int]:
        return [2**bits - 1 for bits in self.bits]

    def _bit_table(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every bit of a row: the number that it is part of, and its place there."""
        return _bit_table(self.bits, device)

    def _byte_table(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of every number: the byte where it begins, its place there, the mask of its bits."""
        return _byte_table(self.bits, device)


@functools.lru_cache(maxsize=16)
def _bit_table(bits: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    number = [index for index, width in enumerate(bits) for _ in range(width)]
    place = [bit for width in bits for bit in range(width)]
    return torch.tensor(number, device=device), torch.tensor(place, dtype=torch.int32, device=device)


@functools.lru_cache(maxsize=16)
def _byte_table(bits: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    begins = _begins(bits)
    return (torch.tensor([at // 8 for at in begins], device=device),
            torch.tensor([at % 8 for at in begins], dtype=torch.int32, device=device),
            torch.tensor([2**width - 1 for width in bits], dtype=torch.int32, device=device))


def _begins(bits: Sequence[int]) -> list[int]:
    return [sum(bits[:index]) for index in range(len(bits))]
