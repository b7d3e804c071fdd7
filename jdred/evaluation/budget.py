"""Senders that take the same total, whatever they spend it on: redundancy is paid out of the core."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from jdred.config import SenderConfig
from jdred.evaluation import trials
from jdred.link.plan import LEAST_CORE_BPS, Split, with_opus_rate

ROUNDS = 3


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
        asked += wanted_kbps - mean_kbps(stage, with_opus_rate(plain, 1000 * asked), staff)[0]
    return with_opus_rate(config, 1000 * asked)


def at_total(stage: trials.Bench, total_kbps: float, split: Split, staff: trials.Workers) -> SenderConfig:
    """A sender of a split that takes what plain Opus takes when it is asked for a total.

    Raises:
      ValueError: the redundancy leaves Opus too little.
    """
    wanted, _ = mean_kbps(stage, SenderConfig(bitrate_bps=round(1000 * total_kbps), dred_duration_ms=0), staff)
    config = SenderConfig(lbrr_bps=int(split.has_lbrr), **split.dred)
    if config.dred_duration_ms:
        wanted -= mean_kbps(stage, config, staff)[1]
    if 1000 * wanted < LEAST_CORE_BPS:
        raise ValueError(f"{split} leaves {wanted:.1f} of {total_kbps} kb/s, less than Opus needs")
    return fit_core(stage, config, wanted, staff)


def at_total_by_kind(
    stage: trials.Bench, total_kbps: float, splits: Mapping[str, Split], staff: trials.Workers
) -> dict[str, SenderConfig]:
    """``at_total`` of the split that each kind of traces has; equal ones are fitted once."""
    fitted = {split: at_total(stage, total_kbps, split, staff) for split in dict.fromkeys(splits.values())}
    return {kind: fitted[split] for kind, split in splits.items()}
