"""Checkpoints while training: orbax, atomic, the newest two kept, and the best by validation beside them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from jdred.weights import CheckpointError

Checkpointer = ocp.training.Checkpointer


def open_folder(folder: Path, keep: int = 2) -> Checkpointer:
    """A checkpointer on a folder, made where absent."""
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    policy = ocp.training.preservation_policies.LatestN(keep)
    return Checkpointer(str(folder), preservation_policy=policy)


def save(checkpointer: Checkpointer, step: int, state: PyTree, meta: dict[str, Any]) -> None:
    """Save one training state; complete or absent, never half."""
    checkpointer.save_checkpointables(step, {"state": state, "meta": meta}, overwrite=True)


def latest_step(checkpointer: Checkpointer) -> int | None:
    """Step of the newest complete checkpoint."""
    return None if checkpointer.latest is None else checkpointer.latest.step


def load(checkpointer: Checkpointer, abstract: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The newest state, on every device that there is now, and its meta data.

    Args:
      abstract: a tree of the same structure, shapes and dtypes.
    Raises:
      CheckpointError: nothing there, or of another model.
    """
    # Without a sharding of its own, a state only goes back to the devices that it was saved from.
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec())
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), abstract)
    loaded = _load(checkpointer, {"state": abstract, "meta": None})
    return loaded["state"], loaded["meta"]


def load_meta(checkpointer: Checkpointer) -> dict[str, Any]:
    """The meta data of the newest checkpoint alone; raises as ``load`` does."""
    return _load(checkpointer, {"meta": None})["meta"]


def _load(checkpointer: Checkpointer, wanted: dict[str, PyTree]) -> dict[str, PyTree]:
    if checkpointer.latest is None:
        raise CheckpointError("no checkpoint in the folder")
    try:
        return checkpointer.load_checkpointables(None, wanted)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"checkpoint does not fit this model: {error}") from error
