"""A small network of every kind, for the tests of what all kinds promise."""

from __future__ import annotations

from dataclasses import replace

from asr_distill.acoustic.config import NetworkConfig

_TDNN = NetworkConfig(kind="tdnn", layers=2, width=24, final=12, norm="batch", splices=((-1, 0, 1), (-2, 0, 2)))
KINDS = {
    "feed_forward": NetworkConfig(layers=2, width=24, left=4, right=2, norm="batch"),
    "tdnn": _TDNN,
    "tdnn_plain": replace(_TDNN, norm="none", splices=((-2, 0), (0, 1))),
    "tdnn_stride": replace(_TDNN, stride=3, splices=()),
    "tdnn_causal": replace(_TDNN, stride=3, splices=((-1, 0), (0,)), front_left=3, front_right=0),
    "tdnn_look_ahead": replace(_TDNN, bottleneck=8, splices=((-1, 0, 1), (-2, 0)), front_left=0, front_right=1),
    "tdnn_f": replace(_TDNN, bottleneck=8, skip=0.66),
    "conv_tdnn": replace(_TDNN, kind="conv_tdnn", stride=2, channels=(4, 6)),
    "attention": replace(_TDNN, kind="attention", stride=3, heads=2, reach=2, skip=1.0, splices=()),
}
