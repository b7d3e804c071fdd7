"""From prepared data to a trained model: what ``jdred train`` and the scripts in ``experiments/`` call."""

from pathlib import Path
from typing import Any

import jax

from jdred import weights
from jdred.config import TrainConfig
from jdred.training import Task, loop
from jdred.training.corpus import Prepared

KINDS = ("rdovae", "lpcnet", "plc")


def make_task(kind: str, data: Path, settings: Any = None) -> Task:
    """The task of a model kind on prepared data; ``settings`` replaces its shipped configuration."""
    folders = sorted(folder for folder in Path(data).glob("train-*") if (folder / "complete").exists())
    if not folders:
        raise FileNotFoundError(f"no complete train-* folder in {data}: run `jdred corpus prepare` first")
    parts = Prepared(*folders), Prepared(Path(data) / "validation")
    if kind == "rdovae":
        from jdred.training.rdovae import RDOVAESettings, RDOVAETask

        return RDOVAETask(*parts, settings or RDOVAESettings())
    if kind == "lpcnet":
        from jdred.training.lpcnet import LPCNetSettings, LPCNetTask

        return LPCNetTask(*parts, settings or LPCNetSettings())
    if kind == "plc":
        from jdred.training.plc import PLCSettings, PLCTask

        return PLCTask(*parts, settings or PLCSettings())
    raise ValueError(f"unknown model kind {kind!r}, expected one of {KINDS}")


def train(kind: str, config: TrainConfig, settings: Any = None) -> dict[str, float]:
    """Train one model kind and leave ``best.npz`` in ``config.out``. Returns the last validation figures."""
    if config.devices:
        jax.config.update("jax_num_cpu_devices", config.devices)
    initial = None if config.start_from is None else weights.read(config.start_from)[0]
    return loop.fit(make_task(kind, config.data, settings), config.out, config.fit, initial=initial)
