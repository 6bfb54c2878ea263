"""Networks by name. A new kind is one file here, one entry in KINDS, and its name in NetworkConfig.kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from asr_distill.acoustic.attention import AttentionNetwork
from asr_distill.acoustic.base import Network
from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.conv_tdnn import ConvTdnn
from asr_distill.acoustic.feed_forward import FeedForward
from asr_distill.acoustic.tdnn import Tdnn

KINDS: dict[str, Callable[[NetworkConfig, int, int], Network]] = {
    "feed_forward": FeedForward, "tdnn": Tdnn, "conv_tdnn": ConvTdnn, "attention": AttentionNetwork}

__all__ = ["KINDS", "Network", "NetworkConfig", "build_network", "num_parameters"]


def build_network(config: NetworkConfig, num_coefficients: int, num_pdfs: int, *, seed: int = 0) -> Network:
    """A float32 network on the CPU whose initial weights depend on `seed` alone (not on torch's global state).

    Raises ValueError for a kind that is not in KINDS.
    """
    if config.kind not in KINDS:
        raise ValueError(f"network kind '{config.kind}' is unknown; known: {', '.join(KINDS)}")
    with torch.random.fork_rng(devices=[]):  # nn.Linear's own initialisation draws from the global generator
        network = KINDS[config.kind](config, num_coefficients, num_pdfs)
    network.reset(torch.Generator().manual_seed(seed))
    return network


def num_parameters(network: nn.Module) -> int:
    """Trained numbers (running statistics not counted)."""
    return sum(parameter.numel() for parameter in network.parameters())
