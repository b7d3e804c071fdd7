"""Small changes to a trained LPCNet that are part of its weights afterwards: loudness, and how sharply it draws."""

from pathlib import Path

import numpy as np

from jdred import weights
from jdred.config import NUM_BANDS
from jdred.training.interpolation import LOG, write_run
from jdred.vocoder.frame_network import KERNEL_SIZE


def louder(arrays: dict[str, np.ndarray], decibels: float) -> dict[str, np.ndarray]:
    """The weights that hear all features as so much louder: c_0 raised, in the bias of the first convolution.

    So it hears the nothing before a stream's first row, too.
    """
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
      source: weights, a shipped name or a path; the log of the run that they are of is taken along if it lies beside.
      out: gets ``best.npz``, its ``.json`` and that log, ``train.csv``; another folder than that of the source.
      decibels: by which it is to be louder.
      sharpness: factor of the logits, above 0.
    Raises:
      CheckpointError: no such weights, or not an LPCNet's.
      ValueError: another sharpness, or the folder of the source.
    """
    if not sharpness > 0:
        raise ValueError(f"expected a sharpness above 0, found {sharpness}")
    if (beside := Path(source).resolve().parent) == out.resolve():
        raise ValueError(f"expected another folder than that of the source, found {out}")
    arrays, config = weights.read(source)
    if config.get("kind") != "lpcnet":
        raise weights.CheckpointError(f"{source}: expected weights of kind lpcnet, found {config.get('kind')}")
    config |= config.get("training", {})  # where shipped weights keep it
    config["decibels"] = decibels + config.get("decibels", 0.0)
    config["sharpness"] = sharpness * config.get("sharpness", 1.0)
    log = beside / LOG if Path(source).is_file() and (beside / LOG).is_file() else None
    write_run(out, sharper(louder(arrays, decibels), sharpness), config, log)
