"""What symbols cost in bits, and what a level is willing to pay."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jdred.config import NUM_LEVELS
from jdred.rdovae.quantizer import Laplace
from jdred.rdovae.tables import coded

FLOOR = 1e-6
"""Keeps a symbol under about 20 bits and its gradient alive."""


def level_lambda(level: Int[Array, "..."], lambda_min: float = 2e-4, lambda_max: float = 0.04) -> Float[Array, "..."]:
    """Distortion that one bit must save at a level: geometric from ``lambda_min`` to ``lambda_max``."""
    return lambda_min * jnp.exp(level * (jnp.log(lambda_max / lambda_min) / (NUM_LEVELS - 1)))


def soft_bits(u: Float[Array, "... dim"], at: Laplace) -> Float[Array, "..."]:
    """Differentiable rate of compressed, unrounded values, summed over dimensions."""
    r = at.decay_soft
    return -jnp.sum(jnp.log2((1 - r) / (1 + r) * r ** jnp.abs(u) + FLOOR), axis=-1)


def hard_bits(q: Float[Array, "... dim"], at: Laplace) -> Float[Array, "..."]:
    """Ideal cost of integer symbols under the coder's distribution, summed over dimensions.

    Trains only the distribution: rounding has no gradient.
    """
    size = jnp.abs(q)
    nonzero = 0.5 * (1 - at.p0) * (1 - at.decay) * at.decay ** jnp.maximum(size - 1, 0)
    return -jnp.sum(jnp.log2(jnp.where(size > 0, nonzero, at.p0) + FLOOR), axis=-1)


def expected_bits(p0: UInt8[np.ndarray, "... dim"], r: UInt8[np.ndarray, "... dim"]) -> Float[np.ndarray, "..."]:
    """Entropy of symbols under coding tables in 1/256 (``tables.CodingTables``), summed over dimensions."""
    on = coded(p0, r)
    zero = np.where(on, np.maximum(p0, 0.5) / 256, 0.5)
    more = np.where(on, r / 256, 0.5)
    size = -(more * np.log2(more) + (1 - more) * np.log2(1 - more)) / (1 - more)
    bits = -zero * np.log2(zero) + (1 - zero) * (size - np.log2((1 - zero) / 2))
    return np.where(on, bits, 0).sum(axis=-1)
