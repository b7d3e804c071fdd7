"""mu-law with 256 values: 0 .. 255 stand for -32768 .. 32767 (int16 units), 128 for zero.

ITU-T G.711's law in its continuous form, mu = 255.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdred.dsp import INT16_SCALE

ZERO = 128
_MU = 255.0


def _sign(x: Array) -> Array:
    """+-1, never 0, so that ``sign * x`` keeps the slope of the law at zero."""
    return jnp.where(x < 0, -1.0, 1.0)


def encode(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Samples in int16 units to continuous values 0 .. 255; differentiable where it does not clip."""
    sign = _sign(x)
    u = ZERO * (1 + sign * jnp.log1p(_MU / INT16_SCALE * sign * x) / jnp.log1p(_MU))
    return jnp.clip(u, 0, 255)


def quantize(x: Float[Array, "..."]) -> Int[Array, "..."]:
    """The nearest of the 256 values."""
    return jnp.round(encode(x)).astype(jnp.int32)


def decode(u: Float[Array, "..."] | Int[Array, "..."]) -> Float[Array, "..."]:
    """Values 0 .. 255, whole or not, to samples in int16 units; the inverse of ``encode``."""
    deviation = u / ZERO - 1.0
    sign = _sign(deviation)
    return sign * INT16_SCALE / _MU * jnp.expm1(sign * deviation * jnp.log1p(_MU))


def log_slope(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Log of the slope of ``decode``: what is added to nats a value to make them nats a sample in int16 units."""
    rate = jnp.log1p(_MU) / ZERO
    return rate * jnp.abs(u - ZERO) + jnp.log(INT16_SCALE / _MU * rate)
