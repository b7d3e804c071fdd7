"""How a total bit rate is split between Opus and the redundancy, and what the parts then really take."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from jdred.config import CHUNK_FRAMES, MAX_CHUNKS, PACKETS_PER_SECOND, SenderConfig
from jdred.evaluation import rate_distortion as rd
from jdred.evaluation import trials
from jdred.models import Models

FRAMING_BITS = 32.0
"""About what the padding around a payload takes."""
ROUNDS = 3
LBRR_SHARE = 0.4
"""Of a rate with LBRR the part that is named so; libopus sees the sum alone."""


@dataclass(frozen=True)
class Split:
    """What the redundancy may take of a total, and how fine it is."""

    level: int
    slope: int
    share: float
    """Of the total, without LBRR."""
    share_beside_lbrr: float


SPLITS = {
    24: Split(9, 5, 0.40, 0.25),
    32: Split(8, 5, 0.42, 0.28),
    40: Split(6, 5, 0.45, 0.30),
    64: Split(4, 3, 0.55, 0.38),
}
"""By total kb/s; near those of libopus 1.6, which sends finer redundancy where the rate allows it."""


def split_for(total_kbps: float) -> Split:
    """The split of the nearest total."""
    return SPLITS[min(SPLITS, key=lambda known: abs(known - total_kbps))]


def longest_duration_ms(models: Models, clips: Mapping[str, np.ndarray], split: Split, budget_kbps: float) -> int:
    """How far back redundancy in every packet reaches within a budget, by the bits it takes on clips; 0: not at all."""
    windows = rd.cut_all(models.rdovae, list(clips.values()), models.extractor)
    coded = rd.code(models.rdovae, models.tables, windows, split.level, split.slope)
    bits = FRAMING_BITS + coded.state_bits.mean() + np.cumsum(coded.chunk_bits.mean(axis=0))
    chunks = np.searchsorted(bits * PACKETS_PER_SECOND / 1000, budget_kbps, side="right")
    return 10 * CHUNK_FRAMES * min(int(chunks), MAX_CHUNKS)


def mean_kbps(stage: trials.Bench, config: SenderConfig, staff: trials.Workers) -> tuple[float, float]:
    """Rates of all clips on average: in all, and of the redundancy."""
    jobs = [(staff.parts, pcm, config) for pcm in stage.clips.values()]
    sent = staff.map(trials.send, jobs, "measuring rates")
    return float(np.mean([s.total_kbps for s in sent])), float(np.mean([s.dred_kbps for s in sent]))


def fit_core(stage: trials.Bench, config: SenderConfig, wanted_kbps: float, staff: trials.Workers) -> SenderConfig:
    """The configuration with the Opus rate at which Opus alone, LBRR included, takes so much on average.

    What is asked of libopus is not what it takes.
    """
    asked, plain = wanted_kbps, replace(config, dred_duration_ms=0)
    for _ in range(ROUNDS):
        plain = _with_opus_rate(plain, 1000 * asked)
        asked += wanted_kbps - mean_kbps(stage, plain, staff)[0]
    return replace(_with_opus_rate(plain, 1000 * asked), dred_duration_ms=config.dred_duration_ms)


def _with_opus_rate(config: SenderConfig, bps: float) -> SenderConfig:
    lbrr = round(LBRR_SHARE * bps) if config.lbrr_bps else 0
    return replace(config, bitrate_bps=max(6000, round(bps) - lbrr), lbrr_bps=lbrr)


def at_total(
    stage: trials.Bench, models: Models, total_kbps: float, lbrr: bool, dred: bool, staff: trials.Workers
) -> SenderConfig:
    """A sender that takes what plain Opus takes when it is asked for a total, redundancy taken out of the core."""
    wanted, _ = mean_kbps(stage, SenderConfig(bitrate_bps=round(1000 * total_kbps), dred_duration_ms=0), staff)
    config = SenderConfig(lbrr_bps=int(lbrr), dred_duration_ms=0)
    if dred:
        split = split_for(total_kbps)
        share = split.share_beside_lbrr if lbrr else split.share
        reach = longest_duration_ms(models, stage.clips, split, share * wanted)
        config = replace(config, level=split.level, slope=split.slope, dred_duration_ms=reach)
        wanted -= mean_kbps(stage, config, staff)[1]
    return fit_core(stage, config, wanted, staff)
