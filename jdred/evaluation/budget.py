"""Senders that take the same total, whatever they spend it on, and which fares best: redundancy is paid by the core."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from jdred.config import SenderConfig
from jdred.evaluation import trials
from jdred.evaluation.tables import Row
from jdred.link.plan import LEAST_CORE_BPS, Split, choose, with_opus_rate

ROUNDS = 3
CHOSEN = "chosen"
BEST_COLUMNS = {"kind": None, "asked_kbps": 0, "estoi": None, "pesq_wb": None, "plcmos": None, "wer": None,
                CHOSEN: None, "behind_estoi": 4}  # fmt: skip


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


def base(config: object) -> str:
    """The kind of redundancy in a configuration's name, ``<kind> <total>``."""
    return str(config).split()[0]


def chosen(stage: trials.Bench, rows: Sequence[Row]) -> list[Row]:
    """The rows of the kind of redundancy that a sender chooses at their total, once more under the name ``chosen``."""

    def is_chosen(row: Row) -> bool:
        return base(row["config"]) == choose(row["asked_kbps"], *stage.told[row["kind"]]).kind

    return [row | {"config": f"{CHOSEN} {row['asked_kbps']}"} for row in rows if is_chosen(row)]


def best(means: Sequence[Row]) -> list[Row]:
    """For every loss pattern and total the kind that is best by each measure; and what a sender chooses.

    ``behind_estoi``: by so much the choice is behind the best in ESTOI.
    """
    found = []
    for kind, total in dict.fromkeys((row["kind"], row["asked_kbps"]) for row in means):
        of = {base(row["config"]): row for row in means if (row["kind"], row["asked_kbps"]) == (kind, total)}
        choice = of.pop(CHOSEN, None)
        winners: Row = {"kind": kind, "asked_kbps": total}
        for measure in ("estoi", "pesq_wb", "plcmos", "wer"):
            known = {name: row[measure] for name, row in of.items() if row.get(measure) is not None}
            if known:
                winners[measure] = (min if measure == "wer" else max)(known, key=known.get)
        if choice is not None:
            winners[CHOSEN] = next(name for name, row in of.items() if row["estoi"] == choice["estoi"])
            winners["behind_estoi"] = max(row["estoi"] for row in of.values()) - choice["estoi"]
        found.append(winners)
    return found
