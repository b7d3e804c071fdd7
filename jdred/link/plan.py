"""What a sender should spend on redundancy, and on which, when it is told what the network loses.

LBRR is a whole coarse copy of one packet, in the next one: it repairs what is lost alone. DRED reaches back over any
gap, but what it repairs is spoken anew. Both are paid out of Opus's own bits. Most of what DRED costs is there however
far it reaches, and one packet in four is enough for a receiver that can wait three packets longer.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jdred.bitstream.payload import level_schedule
from jdred.config import CHUNK_FRAMES, PACKETS_PER_SECOND, SenderConfig
from jdred.models import Models
from jdred.rdovae.rate import expected_bits

PACKET_MS = 1000 // PACKETS_PER_SECOND
KINDS = ("lbrr", "dred", "dred_lbrr")
TOTALS_KBPS = (24, 32, 40, 64)
GAPS_MS = (40, 85, 220)
"""Mean gaps between which losses count as isolated, short, medium and long bursts."""
MANY = 0.25
"""From so much loss on isolated losses often come in pairs."""
LBRR_SHARE = 0.4
"""Of a rate with LBRR the part that is named so; libopus sees the sum alone."""
LEAST_CORE_BPS = 6000
FRAMING_BITS = 56
"""What a payload takes beside its symbols: headers, the mark, padding."""
EVERY = 4
"""Packets of which one carries DRED."""
NEGLIGIBLE_LOSS = 0.005
"""Below it redundancy costs more than it repairs."""
# By total; for isolated losses, many of these, short, medium and long bursts. Found on validation clips, as
# ``experiments/splits.py`` does.
BEST = {
    24: ("lbrr", "dred_lbrr", "dred", "dred", "dred"),
    32: ("dred_lbrr", "dred_lbrr", "dred", "dred", "dred"),
    40: ("dred_lbrr", "dred_lbrr", "dred", "dred", "dred"),
    64: ("dred_lbrr", "dred_lbrr", "dred_lbrr", "dred", "dred"),
}
"""The kind that serves best. Where LBRR alone is ahead by less than .004 both are taken: they repair pairs as well."""
DRED = {
    "dred": {
        24: ((4, 5, 160), (4, 5, 160), (6, 3, 480), (6, 3, 480), (9, 3, 1040)),
        32: ((4, 5, 240), (4, 5, 240), (5, 5, 480), (5, 5, 480), (6, 3, 1040)),
        40: ((0, 3, 240), (0, 3, 240), (2, 3, 480), (2, 3, 480), (3, 3, 1040)),
        64: ((0, 3, 240), (0, 3, 240), (1, 3, 480), (1, 2, 1040), (1, 2, 1040)),
    },
    "dred_lbrr": {
        24: ((7, 5, 160), (7, 5, 160), (9, 5, 480), (9, 5, 480), (9, 3, 1040)),
        32: ((6, 5, 160), (6, 5, 160), (7, 5, 480), (7, 3, 1040), (7, 3, 1040)),
        40: ((4, 5, 160), (4, 5, 160), (5, 5, 480), (5, 5, 480), (6, 3, 1040)),
        64: ((3, 5, 480), (3, 5, 480), (3, 5, 480), (3, 3, 1040), (3, 3, 1040)),
    },
}
"""Level of the newest chunk, slope index, and reach in ms."""


class Split(NamedTuple):
    """A kind of redundancy and what DRED says."""

    kind: str
    """One of ``KINDS``."""
    level: int = 15
    slope: int = 0
    duration_ms: int = 0
    every: int = 1

    @property
    def has_lbrr(self) -> bool:
        return self.kind != "dred"

    @property
    def dred(self) -> dict[str, int]:
        """The fields of ``SenderConfig`` that describe DRED."""
        reach = {"dred_duration_ms": self.duration_ms, "dred_every": self.every}
        return {"level": self.level, "slope": self.slope, **reach}


def choose(total_kbps: float, loss: float, burst_ms: float, kind: str | None = None) -> Split:
    """The split that served best on validation speech, by intelligibility (ESTOI), at the nearest total and burst.

    Args:
      total_kbps: of whole packets.
      loss: fraction of packets lost, 0 .. 1.
      burst_ms: mean length of a gap; 0: packets are lost one by one.
      kind: one of ``KINDS``, to have the best of that kind only.
    """
    if not 0 <= loss < 1 or burst_ms < 0:
        raise ValueError(f"expected a loss of 0 .. 1 and bursts of 0 ms or more, found {loss} and {burst_ms}")
    total = min(TOTALS_KBPS, key=lambda known: abs(known - total_kbps))
    bursts = int(np.searchsorted(GAPS_MS, burst_ms, side="right"))
    gap = 1 + bursts if bursts else int(loss >= MANY)
    wanted = BEST[total][gap] if kind is None else kind
    return Split("lbrr") if wanted == "lbrr" else Split(wanted, *DRED[wanted][total][gap], EVERY)


def plan(
    models: Models, total_bps: int, loss: float, burst_ms: float = 0.0, playout_delay_ms: float = 1040.0
) -> SenderConfig:
    """A sender for a total rate over a network that loses packets like this; for ``Sender`` and ``Sender.adapt``.

    Args:
      total_bps: of whole packets on average, about.
      loss, burst_ms: see ``choose``.
      playout_delay_ms: of the receiver. What comes later is of no use: less delay, shorter reach and more packets that
        carry DRED, coarser so that Opus keeps half of the total. Below one packet nothing comes in time.
    Raises:
      ValueError: out of range, or less than Opus needs.
    """
    if total_bps < LEAST_CORE_BPS:
        raise ValueError(f"expected a total of at least {LEAST_CORE_BPS} b/s, found {total_bps}")
    split = within(choose(total_bps / 1000, loss, burst_ms), burst_ms, playout_delay_ms)
    if loss < NEGLIGIBLE_LOSS or playout_delay_ms < PACKET_MS:
        return SenderConfig(bitrate_bps=total_bps, expected_loss=loss, dred_duration_ms=0)
    config = SenderConfig(expected_loss=loss, lbrr_bps=int(split.has_lbrr), **split.dred)
    config = affordable(models, config, min(total_bps / 2, total_bps - LEAST_CORE_BPS))
    return with_opus_rate(config, total_bps - redundancy_bps(models, config))


def affordable(models: Models, config: SenderConfig, bps: float) -> SenderConfig:
    """A configuration with DRED made coarser until it takes no more than that; without DRED where none does."""
    while redundancy_bps(models, config) > bps:
        if config.level == config.max_level:
            return replace(config, dred_duration_ms=0)
        config = replace(config, level=config.level + 1)
    return config


def within(split: Split, burst_ms: float, delay_ms: float) -> Split:
    """What of a split is in time: a gap and the packets without DRED after it must fit into the delay."""
    chunk_ms = 10 * CHUNK_FRAMES
    reach = chunk_ms * max(1, round(np.ceil(delay_ms / chunk_ms)))
    every = max(1, int((delay_ms - burst_ms) // PACKET_MS))
    return split._replace(duration_ms=min(split.duration_ms, reach), every=min(split.every, every))


def with_opus_rate(config: SenderConfig, bps: float) -> SenderConfig:
    """A configuration whose Opus, LBRR included, is asked for a rate, but for no less than it can."""
    asked = max(LEAST_CORE_BPS, round(bps))
    lbrr = round(LBRR_SHARE * asked) if config.lbrr_bps else 0
    return replace(config, bitrate_bps=asked - lbrr, lbrr_bps=lbrr)


def redundancy_bps(models: Models, config: SenderConfig) -> float:
    """What DRED takes on average speech, by the entropy of the coding tables; packets between have none."""
    if config.dred_duration_ms == 0:
        return 0.0
    chunks = config.dred_duration_ms // (10 * CHUNK_FRAMES)
    levels = np.asarray(level_schedule(*map(np.int32, (config.level, config.slope, config.max_level))))[:chunks]
    tables = models.tables
    latent, state = expected_bits(tables.latent_p0, tables.latent_r), expected_bits(tables.state_p0, tables.state_r)
    bits = FRAMING_BITS + state[config.level] + latent[levels].sum()
    return float(PACKETS_PER_SECOND * bits / config.dred_every)
