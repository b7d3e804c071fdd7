"""Weights as flat files: a model is a ``.npz`` of named arrays, a ``.json`` of its configuration, a ``.md`` card."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

FOLDER = Path(__file__).parent


class CheckpointError(ValueError):
    """A weight file or checkpoint is absent, damaged, or not for this model."""


def _name(path: tuple) -> str:
    """``encoder/grus/0/kernel`` for the leaf of a module at a tree path (the variable's own ``value`` left out)."""
    parts = [str(getattr(key, "name", getattr(key, "idx", getattr(key, "key", key)))) for key in path]
    return "/".join(parts[:-1] if parts[-1] == "value" else parts)


def flatten(module: nnx.Module) -> dict[str, Array]:
    """All arrays of a module by name."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(module)}


def unflatten(template: nnx.Module, arrays: dict[str, Array]) -> nnx.Module:
    """The module of ``template``'s structure with the given arrays. Traceable."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(template)
    return jax.tree_util.tree_unflatten(tree, [arrays[_name(path)] for path, _ in leaves])


def abstract(build: Callable[[], nnx.Module]) -> nnx.Module:
    """A module's structure without computing its initial values."""
    return nnx.eval_shape(build)


def check(template: nnx.Module, arrays: dict[str, Any], source: str) -> None:
    """Raise ``CheckpointError`` unless names and shapes are exactly those of the template."""
    expected = {name: tuple(leaf.shape) for name, leaf in flatten(template).items()}
    missing, extra = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(f"{source}: missing arrays {missing[:5]}, unknown arrays {extra[:5]}")
    for name, shape in expected.items():
        if tuple(np.shape(arrays[name])) != shape:
            raise CheckpointError(f"{source}: {name} has shape {tuple(np.shape(arrays[name]))}, expected {shape}")


def write(path: Path, arrays: dict[str, Any], config: dict[str, Any], *, half: bool = True) -> None:
    """Write ``path`` (.npz) and its ``.json``; floats as float16 where ``half``. Atomic: renamed when complete."""
    path = Path(path).with_suffix(".npz")
    stored = {}
    for name, value in arrays.items():
        value = np.asarray(value)
        stored[name] = value.astype(np.float16) if half and value.dtype == np.float32 else value
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **stored)
    temporary.replace(path)
    path.with_suffix(".json").write_text(json.dumps(config, indent=2) + "\n")


def read(name: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays (float32 or integer) and configuration of a shipped model's name or of a file's path."""
    path = Path(name)
    path = FOLDER / f"{name}.npz" if path.suffix != ".npz" and path.parent == Path(".") else path.with_suffix(".npz")
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in FOLDER.glob("*.npz"))) or "none"
        raise CheckpointError(f"no weights at {path} (shipped: {shipped})")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        config = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is not a jdred weight file: {error}") from error
    except Exception as error:  # zipfile and json raise their own families
        raise CheckpointError(f"{path} is not a jdred weight file: {error}") from error
    widened = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in arrays.items()}
    return widened, config
