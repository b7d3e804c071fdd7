"""mu-law: 256 steps, finer near zero. Index 128 is zero. Signals in int16 units."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdred.dsp import INT16_SCALE

ZERO = 128
"""The index of silence."""
_MU = 255.0
_LOG = float(np.log(1 + _MU))


def encode(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``128 + 128 sgn(x) ln(1 + 255 |x| / 32768) / ln 256``, clipped to 0 .. 255; continuous."""
    steps = ZERO / _LOG * jnp.log1p(_MU / INT16_SCALE * jnp.abs(x))
    return jnp.clip(ZERO + jnp.sign(x) * steps, 0.0, 255.0)


def decode(u: Float[Array, "..."] | Int[Array, "..."]) -> Float[Array, "..."]:
    """The inverse of ``encode`` for an index, whole or not."""
    steps = u - float(ZERO)
    return jnp.sign(steps) * (INT16_SCALE / _MU) * jnp.expm1(_LOG / ZERO * jnp.abs(steps))


def quantize(x: Float[Array, "..."]) -> Int[Array, "..."]:
    """The nearest index, 0 .. 255."""
    return jnp.round(encode(x)).astype(jnp.int32)
