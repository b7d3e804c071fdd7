"""The rate-controllable quantiser: one set of scale, dead zone and Laplace parameters a level and a dimension.

Soft and hard quantisation differ by one line each. Nothing here knows a network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jdred.rdovae.tables import QuantizerTables

PARAMETERS_PER_DIM = 6
DEAD_ZONE_UNIT = 0.05


class Laplace(NamedTuple):
    """Quantiser parameters of every dimension at the wanted levels, all ``[..., dim]``."""

    scale: Float[Array, "... dim"]
    """Steps per unit: the step is ``1 / scale``."""
    dead_zone: Float[Array, "... dim"]
    decay_soft: Float[Array, "... dim"]
    """Laplace decay r of the differentiable rate, 0 .. 1."""
    decay: Float[Array, "... dim"]
    """Laplace decay r of the coder."""
    p0: Float[Array, "... dim"]
    """Probability of the symbol 0 in the coder."""


class Quantizer(nnx.Module):
    """The trained table ``raw`` [levels, 6, dim] and its meaning at a level.

    ``integer``: scales and dead zones are those nearest in 8 bits, 0 .. 255 of 256, as libopus has them.
    """

    def __init__(self, levels: int, dim: int, integer: bool = False):
        self.raw = nnx.Param(jnp.zeros((levels, PARAMETERS_PER_DIM, dim)))
        self.integer = integer

    def at(self, level: Int[Array, "..."]) -> Laplace:
        """Parameters at each of the given levels (0 .. 15)."""
        raw = self.raw[...][level]
        theta = jax.nn.sigmoid(raw[..., 4, :])
        decay = jax.nn.sigmoid(raw[..., 5, :])
        scale, dead_zone = jax.nn.softplus(raw[..., 0, :]), DEAD_ZONE_UNIT * jax.nn.softplus(raw[..., 1, :])
        if self.integer:
            scale, dead_zone = in_8_bits(scale), in_8_bits(dead_zone)
        return Laplace(
            scale=scale,
            dead_zone=dead_zone,
            decay_soft=jax.nn.sigmoid(raw[..., 3, :]),
            decay=decay,
            p0=1 - decay ** (0.5 + 0.5 * theta),
        )


def in_8_bits(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rounded to 1/256, at most 255/256, exactly; gradient of the identity below that."""
    return jnp.minimum(round_straight_through(256 * x), 255) / 256


def raw_parameters(tables: QuantizerTables) -> Float[np.ndarray, "16 6 dim"]:
    """``Quantizer.raw`` of integer tables: with ``integer`` it has their scales and dead zones exactly.

    Decays and probabilities are what the 6 parameters can say of them. Zeros are kept a quarter of a step above zero,
    where they still learn.
    """
    scale, dead_zone, r, p0 = (np.maximum(np.asarray(table, np.float64), 0.25) / 256 for table in tables)
    theta = 2 * np.log1p(-np.minimum(p0, 255 / 256)) / np.log(r) - 1
    decay = np.log(r / (1 - r))
    theta = np.clip(theta, 0.01, 0.99)
    raw = [
        np.log(np.expm1(scale)),
        np.log(np.expm1(dead_zone / DEAD_ZONE_UNIT)),
        np.zeros_like(r),
        decay,
        np.log(theta / (1 - theta)),
        decay,
    ]
    return np.stack(raw, axis=1).astype(np.float32)


def compress(z: Float[Array, "... dim"], at: Laplace) -> Float[Array, "... dim"]:
    """Scale to steps and pull small values towards zero; the dead zone is not undone by the decoder."""
    y = at.scale * z
    return y - at.dead_zone * jnp.tanh(y / (at.dead_zone + 0.1))


def round_straight_through(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rounded value, gradient of the identity."""
    return u + jax.lax.stop_gradient(jnp.floor(u + 0.5) - u)


def symbols(z: Float[Array, "... dim"], at: Laplace) -> Int[Array, "... dim"]:
    """The integers that are coded."""
    return jnp.floor(compress(z, at) + 0.5).astype(jnp.int32)


def dequantize(q: Float[Array, "... dim"] | Int[Array, "... dim"], at: Laplace) -> Float[Array, "... dim"]:
    """What the decoder sees; where the scale is 0 every symbol is."""
    return q / jnp.where(at.scale > 0, at.scale, 1.0)


def pvq_symbols(z: Float[Array, "... dim"], pulses: int, iterations: int = 10) -> Int[Array, "... dim"]:
    """Pyramid vector quantiser: the integer vector of L1 norm ``pulses`` that points nearest to where z does.

    Rescales the target until its rounding has that norm.
    """
    size = jnp.abs(z)
    target = pulses * size / (jnp.sum(size, axis=-1, keepdims=True) + 1e-15)

    def rescale(target: Array) -> Array:
        k = jnp.round(target)
        total = jnp.sum(k, axis=-1, keepdims=True)
        # The smallest factor that moves one more component over its next half step, in the direction that is needed.
        up = jnp.min((k + 0.5) / jnp.maximum(target, 1e-9), axis=-1, keepdims=True) * (1 + 1e-6)
        down = jnp.max(jnp.where(k > 0, (k - 0.5) / jnp.maximum(target, 1e-9), 0), axis=-1, keepdims=True) * (1 - 1e-6)
        return target * jnp.where(total < pulses, up, jnp.where(total > pulses, down, 1.0))

    for _ in range(iterations):
        target = rescale(target)
    return (jnp.round(target) * jnp.sign(z)).astype(jnp.int32)


def to_unit(z: Float[Array, "... dim"] | Int[Array, "... dim"]) -> Float[Array, "... dim"]:
    """The point of the unit sphere in that direction; of pulses it is what the decoder sees."""
    return z / (jnp.linalg.norm(z, axis=-1, keepdims=True) + 1e-15)


def pvq(z: Float[Array, "... dim"], pulses: int) -> Float[Array, "... dim"]:
    """Quantised on the unit sphere, straight-through (the coded state of the ICASSP 2023 paper)."""
    unit = to_unit(z)
    return unit + jax.lax.stop_gradient(to_unit(pvq_symbols(z, pulses)) - unit)
