"""Weights on the way from where a run started to where it arrived: may sound better than both.

M. Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from jdred import weights

LOG = "train.csv"
KEPT = ("kind", "task", "model", "settings", "start_from", "step", "share", "decibels", "sharpness")
"""Of what a run tells of its best weights; figures of validation are not those of others."""


def interpolate(run: Path, out: Path, share: float) -> None:
    """Write a run's folder with weights of which ``share`` is the run's best and the rest what it started from.

    Args:
      run: folder of a training run that started from other weights, which are still where they were, and the same.
      out: gets ``best.npz``, its ``.json`` and ``train.csv``.
      share: 0 .. 1.
    Raises:
      CheckpointError: no run, one that started from nothing, or from weights of other sizes.
      ValueError: another share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of 0 .. 1, found {share}")
    if not (run / "best.npz").is_file():
        raise weights.CheckpointError(f"expected a training run, found no best.npz in {run}")
    arrived, config = weights.read(run / "best.npz")
    if not (start := config.get("start_from")):
        raise weights.CheckpointError(f"expected a run that started from weights, found none in {run / 'best.json'}")
    begun, begun_config = weights.read(start)
    if config["model"] != begun_config["model"]:
        raise weights.CheckpointError(f"expected {start} to have the sizes of {run / 'best.npz'}")
    between = {name: (1 - share) * begun[name] + share * array for name, array in arrived.items()}
    write_run(out, between, {**config, "share": share}, run / LOG)


def write_run(out: Path, arrays: dict[str, np.ndarray], config: dict[str, Any], log: Path | None) -> None:
    """Write a run's folder with weights that are derived from a run's.

    Args:
      config: that of the run, and what was done to its weights; figures of validation are left out.
      log: of the run, if there is one.
    """
    out.mkdir(parents=True, exist_ok=True)
    if log is None:
        (out / LOG).unlink(missing_ok=True)
    else:
        shutil.copy(log, out / LOG)
    weights.write(out / "best.npz", arrays, {key: config[key] for key in KEPT if key in config}, half=False)
