"""Small changes to a trained LPCNet that are part of its weights afterwards: loudness, and how sharply it draws."""

import shutil
from pathlib import Path

import numpy as np

from jdred import weights
from jdred.config import NUM_BANDS
from jdred.training.interpolation import KEPT

KERNEL_SIZE = 3
"""Of the first convolution of ``FrameNetwork``."""


def louder(arrays: dict[str, np.ndarray], decibels: float) -> dict[str, np.ndarray]:
    """The weights that hear all features as so much louder: c_0 raised, in the bias of the first convolution."""
    kernel = arrays["frame/first/kernel"]
    of_level = kernel[:: len(kernel) // KERNEL_SIZE]
    rise = decibels / 10 * NUM_BANDS**0.5
    return {**arrays, "frame/first/bias": arrays["frame/first/bias"] + rise * of_level.sum(axis=0)}


def sharper(arrays: dict[str, np.ndarray], factor: float) -> dict[str, np.ndarray]:
    """The weights whose logits are so many times as large: a temperature of one over the factor."""
    return {**arrays, "output/factors": factor * arrays["output/factors"]}


def adjust(source: str, out: Path, decibels: float, sharpness: float) -> None:
    """Write a run's folder with an LPCNet adjusted.

    Args:
      source: weights, a shipped name or a path; the log of the run that they are of lies beside them, or is not kept.
      out: gets ``best.npz``, its ``.json`` and that log, ``train.csv``.
      decibels: by which it is to be louder.
      sharpness: factor of the logits, above 0.
    Raises:
      CheckpointError: no such weights, or not an LPCNet's.
      ValueError: another sharpness.
    """
    if not sharpness > 0:
        raise ValueError(f"expected a sharpness above 0, found {sharpness}")
    arrays, config = weights.read(source)
    if config.get("kind") != "lpcnet":
        raise weights.CheckpointError(f"{source}: expected weights of kind lpcnet, found {config.get('kind')}")
    known = {key: config[key] for key in KEPT if key in config}
    out.mkdir(parents=True, exist_ok=True)
    if (log := Path(source).with_name("train.csv")).is_file():
        shutil.copy(log, out / "train.csv")
    adjusted = sharper(louder(arrays, decibels), sharpness)
    weights.write(out / "best.npz", adjusted, {**known, "decibels": decibels, "sharpness": sharpness}, half=False)
