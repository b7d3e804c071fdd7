"""A bad network in a box: datagrams in, the same out again, late, twice, out of order or not at all."""

from collections.abc import Iterator
from itertools import chain
from random import Random

from jdred.config import NetworkConfig
from jdred.link.channel import draw_trace
from jdred.link.lossgen import draw_learned_trace

_BLOCK = 4096
"""Losses are drawn so many at a time."""


class Network:
    """Decides what becomes of each datagram. Time is whatever the caller's clock says, in seconds."""

    def __init__(self, config: NetworkConfig):
        """Raises ``ValueError`` for a loss and bursts that do not go together."""
        self.config = config
        self.carried, self.lost, self.doubled = 0, 0, 0
        self._random = Random(config.seed)
        # The first ones are drawn now: that compiles, and no packet should have to wait for it.
        drawn = losses(config)
        self._losses = chain([next(drawn)], drawn)

    def carry(self, now: float, datagram: bytes) -> list[tuple[float, bytes]]:
        """When the datagram comes out: never, once or twice."""
        config = self.config
        if next(self._losses):
            self.lost += 1
            return []
        self.carried += 1
        copies = 1 + (self._random.random() < config.duplicate)
        self.doubled += copies - 1
        return [(now + self._delay_ms() / 1000, datagram) for _ in range(copies)]

    def _delay_ms(self) -> float:
        config = self.config
        held = config.reorder_ms if self._random.random() < config.reorder else 0.0
        return config.delay_ms + held + config.jitter_ms * self._random.random()


def losses(config: NetworkConfig) -> Iterator[bool]:
    """Which packets are lost, without an end."""
    seed = config.seed
    while True:
        if config.learned:
            trace = draw_learned_trace(_BLOCK, config.loss, seed)
        else:
            trace = draw_trace(_BLOCK, config.loss, config.burst_ms or None, config.max_burst_ms or None, seed=seed)
        yield from trace.astype(bool)
        seed += 1
