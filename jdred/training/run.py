"""From prepared data to a trained model: what ``jdred train`` and the scripts in ``experiments/`` call."""

import os
from contextlib import closing
from dataclasses import is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jax
import numpy as np

from jdred import weights
from jdred.config import ModelKind, TrainConfig
from jdred.models import TABLES
from jdred.training import Task, checkpoint, loop
from jdred.training.corpus import Prepared

KINDS = get_args(ModelKind)
"""Each has further tasks, in its line of ``_TASKS``."""
_TASKS = {
    "rdovae": "RDOVAE", "joint": "Joint",
    "lpcnet": "LPCNet", "freerun": "FreeRun", "finish": "Finish",
    "fargan": "FARGAN", "student": "Student", "adversarial": "Adversarial",
    "plc": "PLC", "gap": "Gap",
    "lossgen": "Loss",
}  # fmt: skip
"""What the classes in the module of a task begin with: ``<name>Task``, ``<name>Settings``."""


def make_task(kind: str, data: Path, settings: Any = None) -> Task:
    """A task on prepared data (``lossgen`` makes its own); ``settings`` replaces its shipped configuration."""
    if kind not in _TASKS:
        raise ValueError(f"unknown task {kind!r}, expected one of {tuple(_TASKS)}")
    module = import_module(f"jdred.training.{kind}")
    task, shipped = (getattr(module, _TASKS[kind] + part) for part in ("Task", "Settings"))
    if kind == "lossgen":
        return task(settings or shipped())
    folders = sorted(folder for folder in Path(data).glob("train-*") if (folder / "complete").exists())
    if not folders:
        raise FileNotFoundError(f"no complete train-* folder in {data}: run `jdred corpus prepare` first")
    return task(Prepared(*folders), Prepared(Path(data) / "validation"), settings or shipped())


def train(kind: str, config: TrainConfig, settings: Any = None) -> dict[str, float]:
    """Train one model kind and leave ``best.npz`` in ``config.out``. Returns the last validation figures."""
    use_devices(config.devices)
    task, initial = make_task(kind, config.data, settings), None
    changes = {name: getattr(config, name) for name in ("learning_rate", "batch") if getattr(config, name) is not None}
    if config.muon:
        if not hasattr(task.settings, "muon"):
            raise ValueError(f"expected a task that has a choice of optimiser for muon, found {kind}")
        changes["muon"] = True
    if config.start_from is not None:
        arrays, stored = weights.read(config.start_from)
        if stored.get("kind") != (wanted := task.config()["kind"]):
            found = stored.get("kind")
            raise weights.CheckpointError(f"{config.start_from}: expected weights of kind {wanted}, found {found}")
        initial = {name: array for name, array in arrays.items() if not name.startswith(TABLES)}
        changes["model"] = type(task.settings.model)(**stored["model"])
        if kind in ("rdovae", "joint"):
            changes["loss"] = replace(task.settings.loss, latent_ramp_steps=0.0, state_ramp_steps=0.0)
    task = replace(task, settings=replace(task.settings, **changes))
    return loop.fit(task, config.out, config.fit, initial=initial, start_from=config.start_from or "")


def use_devices(count: int) -> None:
    """Make so many devices of the CPU, before JAX is used; 0: as it finds them."""
    if count:
        jax.config.update("jax_num_cpu_devices", count)
        # With as many threads as devices a sum over the devices may wait for ever for the thread that it waits in.
        os.environ.setdefault("NPROC", str(max(2 * count, os.cpu_count() or 1)))


def restore_task(config: dict[str, Any], data: Path) -> Task:
    """The task whose ``config()`` this is, on prepared data."""
    task = make_task(config.get("task", config["kind"]), data)
    return replace(task, settings=_rebuild(type(task.settings), config["settings"]))


def _rebuild(kind: Any, value: Any) -> Any:
    """A dataclass of plain fields from what ``asdict`` and a JSON file or a checkpoint made of it."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _rebuild(hints[name], field) for name, field in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_rebuild(None, item) for item in value)
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def evaluate(run: Path, data: Path) -> dict[str, float]:
    """Restore the newest checkpoint of a run and validate its averaged weights.

    Returns:
      the step and the validation figures.
    Raises:
      CheckpointError: there is no checkpoint, or it is damaged.
    """
    folder = Path(run) / "checkpoints"
    if not folder.is_dir():
        raise weights.CheckpointError(f"expected checkpoints of a training run in {folder}, found no such folder")
    with closing(checkpoint.open_folder(folder)) as saver:
        task = restore_task(checkpoint.load_meta(saver)["config"], data)
        state, _ = checkpoint.load(saver, loop.abstract_state(task))
    return {"step": int(state["step"]), **loop.validator(task)(loop.model_arrays(task, state["ema"]))}
