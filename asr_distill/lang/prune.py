"""Entropy pruning of backoff n-gram models (Stolcke 1998, "Entropy-based pruning of backoff language models")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr_distill.lang.ngram_model import BEGIN, END, NgramModel, NgramTable

_LEAST = 1e-12  # mass left for shorter histories


def pruned(model: NgramModel, threshold: float, histories: Sequence[np.ndarray] | None = None) -> NgramModel:
    """Without the n-grams whose loss raises the perplexity relatively by less than `threshold`.

    histories: for each order below the highest, the share of all words of the text that follow each of its n-grams,
    (n-grams,). Without them the model's own probabilities serve, which Kneser-Ney's discounts spoil (Chelba et al.
    2010, "Study on interaction between entropy pruning and Kneser-Ney smoothing").
    """
    vocabulary = len(model.words)
    tables = list(model.tables)
    children = np.zeros(len(tables[-1]), bool)  # n-grams that begin a longer one that stays
    for order in range(model.order, 1, -1):
        shares = histories[order - 2] if histories is not None else _own_shares(model, order - 1)
        keep = children | (_losses(model, order, shares) >= threshold)
        table = tables[order - 1]
        tables[order - 1] = NgramTable(table.keys[keep], table.log10[keep], table.backoff[keep])
        if order < model.order:
            longer = tables[order]
            prefix, words = np.divmod(longer.keys, vocabulary)
            moved = (np.cumsum(keep) - 1)[prefix] * vocabulary + words
            tables[order] = NgramTable(moved, longer.log10, longer.backoff)
        children = np.zeros(len(tables[order - 2]), bool)
        children[tables[order - 1].keys // vocabulary] = True
    return with_backoffs(NgramModel(model.words, [table for table in tables if len(table)]))


def with_backoffs(model: NgramModel) -> NgramModel:
    """Backoff weights such that the probabilities after every history sum to one."""
    again = NgramModel(model.words, model.tables)
    for order in range(2, model.order + 1):
        prefix = again.tables[order - 1].keys // len(again.words)
        listed, lower = _masses(again, order)
        histories = again.tables[order - 2]
        free, rest = (np.maximum(1 - np.bincount(prefix, mass, len(histories)), _LEAST) for mass in (listed, lower))
        begun = np.bincount(prefix, minlength=len(histories)) > 0
        backoff = np.where(begun, np.log10(free / rest), 0.0).astype(np.float32)
        again.tables[order - 2] = NgramTable(histories.keys, histories.log10, backoff)
    highest = again.tables[-1]
    again.tables[-1] = NgramTable(highest.keys, highest.log10, np.zeros(len(highest), np.float32))
    return again


def _losses(model: NgramModel, order: int, shares: np.ndarray) -> np.ndarray:
    """Relative rise of the perplexity for the loss of each n-gram of an order, (n-grams,): Stolcke's section 3."""
    prefix = model.tables[order - 1].keys // len(model.words)
    listed, lower = _masses(model, order)
    size = len(model.tables[order - 2])
    free, rest = (np.maximum(1 - np.bincount(prefix, mass, size), _LEAST)[prefix] for mass in (listed, lower))
    backoff, wider = np.log(free / rest), np.log((free + listed) / (rest + lower))
    change = listed * (np.log(lower) + wider - np.log(listed)) + free * (wider - backoff)
    return np.expm1(-shares[prefix] * change)


def _masses(model: NgramModel, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each n-gram of an order: P(last word | history), and that after the history's first word is left out."""
    lower = np.empty(model.sizes[order - 1])
    for rows, ids in model.blocks(order):
        lower[rows] = model.last_log10(ids[:, 1:])
    return 10 ** model.tables[order - 1].log10.astype(np.float64), 10**lower


def _own_shares(model: NgramModel, order: int) -> np.ndarray:
    """Probability of each n-gram of an order by the chain rule; `<s>` is as likely as `</s>`."""
    shares = np.empty(model.sizes[order - 1])
    for rows, ids in model.blocks(order):
        begins = np.zeros(ids.shape, bool)
        begins[:, 0] = True
        log10 = model.log10(ids.ravel(), begins.ravel()).reshape(ids.shape)
        first = np.where(ids[:, 0] == model.ids[BEGIN], model.ids[END], ids[:, 0])
        log10[:, 0] = model.tables[0].log10[first]
        shares[rows] = 10 ** log10.sum(axis=1)
    return shares
