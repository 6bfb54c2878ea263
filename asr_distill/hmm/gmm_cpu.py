"""Log-likelihoods of Gaussian mixtures on a CPU: compiled loops over blocks of frames that stay in cache."""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 64  # frames side by side: four or eight vector registers of sums
_LOG2E, _LN2_HIGH, _LN2_LOW = np.float32(1.442695041), np.float32(0.693359375), np.float32(-2.12194440e-4)
_LEAST = np.float32(-87.0)  # e^x below it is no normal float32


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def score_pdfs(features: np.ndarray, rows: np.ndarray, begins: np.ndarray, ends: np.ndarray,
               out: np.ndarray) -> None:  # pragma: no cover (compiled)
    """out (frames, P) = log p(x | pdf), for P pdfs whose components are rows begins[p] to ends[p].

    features: float32 (frames, D); rows: float32 (G, 2 D + 1), factors of x, of x^2 and the constant.
    """
    frames, size = features.shape
    most = 1
    for p in range(len(begins)):
        most = max(most, ends[p] - begins[p])
    block = np.empty((2 * size, BLOCK), np.float32)
    joint = np.empty((most, BLOCK), np.float32)
    best = np.empty(BLOCK, np.float32)
    total = np.empty(BLOCK, np.float32)
    power = np.empty(BLOCK, np.int32)
    for first in range(0, frames, BLOCK):
        count = min(BLOCK, frames - first)
        for f in range(BLOCK):
            source = first + min(f, count - 1)
            for d in range(size):
                x = features[source, d]
                block[d, f] = x
                block[size + d, f] = x * x
        for p in range(len(begins)):
            begin, components = begins[p], ends[p] - begins[p]
            for k in range(components):
                row, sums = rows[begin + k], joint[k]
                for f in range(BLOCK):
                    sums[f] = row[2 * size]
                for d in range(0, 2 * size, 2):  # 2 * size is even: two products at a time halve the loads of sums
                    u, v, xs, ys = row[d], row[d + 1], block[d], block[d + 1]
                    for f in range(BLOCK):
                        sums[f] += u * xs[f] + v * ys[f]
            for f in range(BLOCK):
                best[f] = joint[0, f]
            for k in range(1, components):
                for f in range(BLOCK):
                    best[f] = max(best[f], joint[k, f])
            if components > 1:
                for f in range(BLOCK):
                    total[f] = 0.0
                for k in range(components):
                    _add_exp(joint[k], best, total, power)
                for f in range(count):
                    out[first + f, p] = best[f] + np.log(total[f])
            else:
                for f in range(count):
                    out[first + f, p] = best[f]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, inline="always")
def _add_exp(values: np.ndarray, best: np.ndarray, total: np.ndarray,
             power: np.ndarray) -> None:  # pragma: no cover (compiled)
    """total += exp(values - best), in place over a block; a polynomial, since a call of exp cannot be vectorised."""
    for f in range(BLOCK):
        x = max(values[f] - best[f], _LEAST)
        n = np.float32(np.floor(x * _LOG2E + np.float32(0.5)))
        r = (x - n * _LN2_HIGH) - n * _LN2_LOW
        y = np.float32(1.9875691500e-4)
        y = y * r + np.float32(1.3981999507e-3)
        y = y * r + np.float32(8.3334519073e-3)
        y = y * r + np.float32(4.1665795894e-2)
        y = y * r + np.float32(1.6666665459e-1)
        y = y * r + np.float32(5.0000001201e-1)
        values[f] = y * r * r + r + np.float32(1.0)
        power[f] = (np.int32(n) + np.int32(127)) << np.int32(23)
    scale = power.view(np.float32)
    for f in range(BLOCK):
        total[f] += values[f] * scale[f]
