"""A smaller FARGAN out of a trained one: units are left out, and those that stay speak for them.

Of every layer the units are kept that best span what all of them say (column-pivoted QR). What the others would have
said is put together from those, by least squares, in the weights that read the layer (after He, Zhang and Sun, "Channel
Pruning for Accelerating Very Deep Neural Networks", 2017).
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from scipy.linalg import block_diag, qr

from jdred import weights
from jdred.config import FARGANConfig
from jdred.training.student import follow
from jdred.vocoder.fargan import FARGAN, PITCH_SAMPLES, SUBFRAME_SAMPLES, SUBFRAMES, Layers

WIDTHS = ("condition", "first", "grus", "dense")
"""Sizes that may become smaller."""
RIDGE = 1e-4
"""Of the least squares, relative to the mean square of the units that stay."""


class Activations(NamedTuple):
    """What a FARGAN says inside while it speaks."""

    condition: Float[Array, "steps batch condition"]
    layers: Layers


class Kept(NamedTuple):
    """Indices of the units of each layer that stay."""

    condition: Int[np.ndarray, "condition"]
    first: Int[np.ndarray, "first"]
    grus: tuple[Int[np.ndarray, "width"], ...]
    dense: Int[np.ndarray, "dense"]


def activations(model: FARGAN, batch: dict[str, Array]) -> Activations:
    """Let a FARGAN speak freely from the features of a batch of ``training.fargan``."""
    way = follow(model, batch)
    heard = model.subframe.hear(way.before.memory, way.steps)
    return Activations(way.steps.condition, model.subframe.layers(way.before, heard))


def choose(model: FARGAN, seen: Activations, sizes: FARGANConfig) -> Kept:
    """The units to keep for ``sizes``; some thousands of steps tell.

    Raises:
      ValueError: more units than there are, or other sizes than ``WIDTHS`` differ.
    """
    free = {name: getattr(sizes, name) for name in WIDTHS}
    if replace(model.config, **free) != sizes or len(sizes.grus) != len(model.config.grus):
        raise ValueError(f"expected sizes that differ in {', '.join(WIDTHS)} only from {model.config}, found {sizes}")
    for name in WIDTHS:
        if np.any(np.greater(getattr(sizes, name), most := getattr(model.config, name))):
            raise ValueError(f"expected {name} of up to {most}, found {getattr(sizes, name)}")
    layers = seen.layers
    first, dense = select_units(layers.first, sizes.first), select_units(layers.dense, sizes.dense)
    return Kept(
        select_units(seen.condition, sizes.condition), first, tuple(map(select_units, layers.h, sizes.grus)), dense
    )


def prune(model: FARGAN, seen: Activations, kept: Kept) -> FARGAN:
    """Leave out all units but those kept, which are read in the others' place as well."""
    layers = seen.layers
    reads = Layers(
        reconstruction(layers.ungated_first, kept.first),
        reconstruction(layers.first, kept.first),
        tuple(map(reconstruction, layers.h, kept.grus)),
        tuple(map(reconstruction, layers.outputs, kept.grus)),
        reconstruction(layers.ungated_dense, kept.dense),
        reconstruction(layers.dense, kept.dense),
    )
    return resize(model, Activations(reconstruction(seen.condition, kept.condition), reads), kept)


def resize(model: FARGAN, reads: Activations, kept: Kept) -> FARGAN:
    """A FARGAN of other widths.

    Args:
      reads: in place of what each layer says the matrix (new units, old units) that makes it of what the new one says.
      kept: of each new unit the old one that it is.
    """
    sizes = replace(
        model.config, condition=len(kept.condition), first=len(kept.first), grus=tuple(map(len, kept.grus)),
        dense=len(kept.dense),
    )  # fmt: skip
    template = weights.abstract(lambda: FARGAN(sizes, rngs=nnx.Rngs(0)))
    arrays = {name: np.asarray(array) for name, array in weights.flatten(model).items()}
    for name, change in _changes(reads, kept).items():
        arrays[name] = cut(arrays[name], *change).astype(np.float32)
    weights.check(template, arrays, "a FARGAN of other widths")
    return weights.unflatten(template, jax.tree.map(jnp.asarray, arrays))


def _changes(reads: Activations, kept: Kept) -> dict[str, tuple]:
    """Arguments of ``cut`` by the name of the kernel."""
    layers, samples = reads.layers, np.eye(SUBFRAME_SAMPLES)
    heard = (reads.condition, np.eye(PITCH_SAMPLES), samples)
    changes = {
        "condition/output/kernel": ((), kept.condition, SUBFRAMES),
        "subframe/gain/kernel": ((reads.condition,), None),
        "subframe/first/kernel": (heard * 2, kept.first),
        "subframe/first_glu/kernel": ((layers.ungated_first,), kept.first),
        "subframe/pitch_gains/kernel": ((layers.first,), None),
        "subframe/dense/kernel": ((*layers.outputs, layers.first, samples, samples), kept.dense),
        "subframe/dense_glu/kernel": ((layers.ungated_dense,), kept.dense),
        "subframe/output/kernel": ((layers.dense,), None),
    }
    below = (layers.first, *layers.outputs)
    for number, (units, h) in enumerate(zip(kept.grus, layers.h, strict=True)):
        changes[f"subframe/grus/{number}/kernel"] = ((below[number], samples, samples), units, 3)
        changes[f"subframe/grus/{number}/recurrent"] = ((h,), units, 3)
        changes[f"subframe/glus/{number}/kernel"] = ((h,), units)
    return changes


def cut(
    kernel: Float[np.ndarray, "n_in n_out"],
    blocks: tuple[Float[np.ndarray, "_ _"], ...],
    units: Int[np.ndarray, "units"] | None,
    parts: int = 1,
) -> Float[np.ndarray, "_ _"]:
    """A kernel that reads the units kept and yields those kept.

    Args:
      blocks: ``reconstruction`` of each of the inputs, one after the other; none: all inputs stay.
      units: outputs to keep of each of so many ``parts`` of equal length; None: all.
    """
    kernel = block_diag(*blocks) @ kernel if blocks else kernel
    return kernel if units is None else kernel.reshape(len(kernel), parts, -1)[..., units].reshape(len(kernel), -1)


def select_units(values: Float[Array, "... units"], count: int) -> Int[np.ndarray, "count"]:
    """The units, in rising order, that best span the values of all."""
    flat = np.asarray(values, np.float64).reshape(-1, np.shape(values)[-1])
    return np.sort(qr(flat, mode="r", pivoting=True)[1][:count])


def reconstruction(
    values: Float[Array, "... units"], kept: Int[np.ndarray, "count"]
) -> Float[np.ndarray, "count units"]:
    """The matrix that puts the values of all units together from those kept; a kept one is itself."""
    flat = np.asarray(values, np.float64).reshape(-1, np.shape(values)[-1])
    stay = flat[:, kept]
    square = stay.T @ stay
    square += RIDGE * np.trace(square) / len(kept) * np.eye(len(kept))
    matrix = np.linalg.solve(square, stay.T @ flat)
    matrix[:, kept] = np.eye(len(kept))
    return matrix
