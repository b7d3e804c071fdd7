"""How libopus stores a linear layer: 8-bit weights in blocks with a scale per output, or float32.

A block is 8 outputs by 4 inputs, its outputs first. A sparse layer leaves blocks of zeros out and lists, for every
group of 8 outputs, how many blocks are stored and at which inputs they begin. The 8-bit weight is ``W / (127 scale)``
because inputs, too, are numbers of 8 bits: their 127-fold, rounded, so that a product is ``scale * integer``.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int8, Int32

from jdred.libopus import LibopusError
from jdred.libopus.places import Place, Storage

BLOCK_OUTPUTS, BLOCK_INPUTS = 8, 4
_BLOCK = BLOCK_OUTPUTS * BLOCK_INPUTS
STEPS = 127
"""Of an activation between 0 and 1, and the largest weight."""
MAX_PAIR = 129
"""Largest sum of two neighbouring weights of one sign: times 254, the largest input, it is just below 2**15."""
_OFF_GRID = 2e-3
"""Steps by which a weight may lie off the grid of its row and the row still count as weights of 8 bits."""

Arrays = Mapping[str, np.ndarray]


class Linear(NamedTuple):
    """A layer in plain numbers: ``y = W x + b``; of tables and convolutions over images, the arrays as they are."""

    W: Float[np.ndarray, "outputs inputs"]
    b: Float[np.ndarray, "outputs"]


def load(arrays: Arrays, place: Place, inputs: int, outputs: int) -> Linear:
    """A layer from the arrays of libopus.

    Args:
      arrays: by libopus's names.
      place: which layer.
      inputs: that it must have; 0 for a table or a convolution over images.
      outputs: that it must have, beside padding.
    Raises:
      LibopusError: arrays are missing or have other sizes.
    """
    if place.storage == "float":
        return _load_float(arrays, place, inputs, outputs)
    padded = -(-outputs // place.multiple) * place.multiple
    scale = _get(arrays, place.layer, "scale", padded)
    flat = _get(arrays, place.layer, "weights_int8", None)
    if f"{place.layer}_weights_idx" in arrays:
        rows = _from_sparse(place.layer, flat, _get(arrays, place.layer, "weights_idx", None), padded, inputs)
    else:
        rows = _from_blocks(_get(arrays, place.layer, "weights_int8", padded * inputs), padded, inputs)
    W = (STEPS * scale.astype(np.float64)[:, None] * rows).astype(np.float32)
    bias = _get(arrays, place.layer, "bias", padded) if place.stores_bias else np.zeros(padded, np.float32)
    return Linear(W[:outputs], bias[:outputs])


def _load_float(arrays: Arrays, place: Place, inputs: int, outputs: int) -> Linear:
    if place.kind == "linear":
        W = _get(arrays, place.layer, "weights_float", inputs * outputs).reshape(inputs, outputs).T
    else:
        field = "weights_float" if place.kind == "table" else "weight_float"
        W = _get(arrays, place.layer, field, None)
    return Linear(np.float32(W), np.float32(_get(arrays, place.layer, "bias", outputs)))


def _get(arrays: Arrays, layer: str, field: str, size: int | None) -> np.ndarray:
    name = f"{layer}_{field}"
    if name not in arrays:
        raise LibopusError(f"no array {name}")
    array = np.asarray(arrays[name]).reshape(-1)
    if size is not None and array.size != size:
        raise LibopusError(f"{name}: expected {size} values, found {array.size}")
    return array


def _from_blocks(flat: np.ndarray, outputs: int, inputs: int) -> Int8[np.ndarray, "outputs inputs"]:
    blocks = flat.reshape(outputs // BLOCK_OUTPUTS, inputs // BLOCK_INPUTS, BLOCK_OUTPUTS, BLOCK_INPUTS)
    return blocks.transpose(0, 2, 1, 3).reshape(outputs, inputs)


def _from_sparse(
    layer: str, flat: np.ndarray, index: np.ndarray, outputs: int, inputs: int
) -> Int8[np.ndarray, "outputs inputs"]:
    blocks = np.zeros((outputs // BLOCK_OUTPUTS, inputs // BLOCK_INPUTS, BLOCK_OUTPUTS, BLOCK_INPUTS), np.int8)
    taken, place = 0, 0
    for group in blocks:
        count = int(index[place]) if place < len(index) else -1
        starts = index[place + 1 : place + 1 + max(count, 0)]
        stored = flat[_BLOCK * taken : _BLOCK * (taken + len(starts))]
        if len(starts) != count or len(stored) != _BLOCK * count or np.any((starts < 0) | (starts >= inputs)):
            raise LibopusError(f"{layer}_weights_idx does not fit {layer}_weights_int8 and {inputs} inputs")
        group[starts // BLOCK_INPUTS] = stored.reshape(-1, BLOCK_OUTPUTS, BLOCK_INPUTS)
        taken, place = taken + count, place + 1 + count
    if place != len(index) or _BLOCK * taken != len(flat):
        raise LibopusError(f"{layer}_weights_idx: {outputs} outputs take {place} of {len(index)} numbers")
    return blocks.transpose(0, 2, 1, 3).reshape(outputs, inputs)


def store(layer: Linear, place: Place) -> dict[str, np.ndarray]:
    """The arrays of libopus for a layer; the inverse of ``load``, up to the rounding of weights that are not 8 bits."""
    W, b = np.float32(layer.W), np.float32(layer.b)
    if place.storage == "float":
        field = "weight_float" if place.kind == "conv2d" else "weights_float"
        flat = W.T if place.kind == "linear" else W
        return _named(place.layer, {field: np.ascontiguousarray(flat).reshape(-1), "bias": b})
    padding = -len(W) % place.multiple
    W, b = np.pad(W, [(0, padding), (0, 0)]), np.pad(b, (0, padding))
    rows, scale = quantize(W)
    subias = b - np.float32(STEPS) * scale * rows.sum(axis=1).astype(np.float32)
    weights = _to_blocks(rows, place.storage)
    return _named(
        place.layer, weights | {"subias": subias, "scale": scale} | ({"bias": b} if place.stores_bias else {})
    )


def _named(layer: str, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{layer}_{field}": array for field, array in fields.items()}


def quantize(
    W: Float[np.ndarray, "outputs inputs"],
) -> tuple[Int8[np.ndarray, "outputs inputs"], Float[np.ndarray, "outputs"]]:
    """8-bit weights and the scale of every row, ``W = 127 scale weights`` but for rounding.

    The scale is the finest that keeps weights within 127 and pairs within 129. A row that is 8 bits already, as
    imported ones are, keeps its numbers.
    """
    W = np.asarray(W, np.float64)
    pairs = W[:, 0::2] + W[:, 1::2]
    same_sign = W[:, 0::2] * W[:, 1::2] > 0
    step = np.maximum(np.abs(W).max(axis=1) / STEPS, np.abs(np.where(same_sign, pairs, 0)).max(axis=1) / MAX_PAIR)
    step = np.where(step > 0, _grid(W, step), 0)
    rows = np.round(W / np.where(step > 0, step, 1)[:, None])
    # Two halves that both round up.
    first, second = rows[:, 0::2], rows[:, 1::2]
    first -= np.where((first * second > 0) & (np.abs(first + second) > MAX_PAIR), np.sign(first), 0)
    return rows.astype(np.int8), _scale(W, rows, step)


def _grid(W: Float[np.ndarray, "outputs inputs"], step: Float[np.ndarray, "outputs"]) -> Float[np.ndarray, "outputs"]:
    """The step of which all weights of a row are multiples, where there is one that is no finer than ``step``."""
    largest = np.abs(W).max(axis=1)
    found = step.copy()
    for count in range(STEPS, 0, -1):  # Down: the coarsest grid has the last word.
        candidate = largest / count
        multiples = W / np.where(candidate > 0, candidate, 1)[:, None]
        on_grid = np.abs(multiples - np.round(multiples)).max(axis=1) < _OFF_GRID
        found = np.where(on_grid & (candidate >= step * (1 - 1e-5)), candidate, found)
    return found


def _scale(W: np.ndarray, rows: np.ndarray, step: np.ndarray) -> Float[np.ndarray, "outputs"]:
    """The step in units of 127ths: of the neighbouring float32 numbers the one that gives the weights best."""
    middle = (step / STEPS).astype(np.float32)
    candidates = [np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(np.inf))]
    candidates = np.where(step > 0, np.stack(candidates), 0).astype(np.float32)
    values = STEPS * candidates.astype(np.float64)[..., None] * rows
    error = np.abs(values - W).sum(axis=-1)
    return np.take_along_axis(candidates, np.argmin(error, axis=0)[None], axis=0)[0]


def _to_blocks(rows: Int8[np.ndarray, "outputs inputs"], storage: Storage) -> dict[str, np.ndarray]:
    outputs, inputs = rows.shape
    blocks = rows.reshape(outputs // BLOCK_OUTPUTS, BLOCK_OUTPUTS, inputs // BLOCK_INPUTS, BLOCK_INPUTS)
    blocks = blocks.transpose(0, 2, 1, 3)
    if storage != "sparse":
        return {"weights_int8": blocks.reshape(-1)}
    kept = blocks.any(axis=(2, 3))
    index: list[Int32[np.ndarray, n]] = []
    for group in kept:
        starts = BLOCK_INPUTS * np.flatnonzero(group)
        index += [[len(starts)], starts]
    return {"weights_int8": blocks[kept].reshape(-1), "weights_idx": np.concatenate(index).astype(np.int32)}
