"""The six loss patterns that codecs are compared on, and traces of them for clips of one's own."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jdred.link.channel import draw_trace, realised_loss

PROTECTED = (15, 3)
"""Packets at both ends of a clip that are never lost: no concealer can do anything about the first."""
TOLERANCE = 0.03
"""A bursty trace is drawn again until its loss is so near to what is asked for."""
SHORT = 250
"""Fewer packets than that need not come near it."""


class Pattern(NamedTuple):
    """How packets get lost."""

    title: str
    loss: float
    burst_ms: float | None = None
    """Mean length of a gap; None: packets are lost one by one."""
    longest_ms: float | None = None


PATTERNS = {
    "rand10": Pattern("isolated losses, 10 %", 0.1),
    "rand20": Pattern("isolated losses, 20 %", 0.2),
    "rand30": Pattern("isolated losses, 30 %", 0.3),
    "ge20s": Pattern("bursts of 60 ms, 20 %", 0.2, 60, 500),
    "ge20": Pattern("bursts of 120 ms, 20 %", 0.2, 120, 1000),
    "ge20l": Pattern("bursts of 400 ms, 20 %", 0.2, 400, 1000),
}


def draw(pattern: Pattern, packets: int, seed: int) -> UInt8[np.ndarray, "packets"]:
    """One trace, of the loss that the pattern names as far as its length allows."""
    while True:
        trace = draw_trace(packets, pattern.loss, pattern.burst_ms, pattern.longest_ms, 20, seed, *PROTECTED)
        if abs(realised_loss(trace) - pattern.loss) <= TOLERANCE or packets < SHORT:
            return trace
        seed += 100_003
