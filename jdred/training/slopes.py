"""Slopes of what has none: rounding, look-ups and chance, so that gradients go through a vocoder that draws samples.

Values stay what they are. Slopes are bounded where they would run away from step to step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdred.dsp import mulaw
from jdred.vocoder import sampling
from jdred.vocoder.bunch import look_up

MEMORY = 0.965
"""Of a gradient so much goes from one bunch of samples to the one before; all of it would explode now and then ..."""
LARGEST = 0.002
"""... as would larger gradients of a sequence's loss, which is about 1."""
RAREST = 0.002
"""An index less likely than this moves as if it were so likely."""


def bounded(gradient: Float[Array, "..."], batch: int) -> Float[Array, "..."]:
    """Within ``LARGEST``, for a loss that is the mean over a batch."""
    return jnp.clip(jnp.nan_to_num(gradient), -LARGEST / batch, LARGEST / batch)


@jax.custom_vjp
def fading(carry: tuple[Array, ...]) -> tuple[Array, ...]:
    """What goes from bunch to bunch, as it is; its gradient fades and stays within bounds. Batch first in the first."""
    return carry


def _fade(_, gradient):
    return (jax.tree.map(lambda x: bounded(MEMORY * x, len(gradient[0])), gradient),)


fading.defvjp(lambda carry: (carry, None), _fade)


def quantize(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``mulaw.quantize`` as floats, with the slope of ``mulaw.encode``."""
    u = mulaw.encode(x)
    return u + jax.lax.stop_gradient(jnp.round(u) - u)


@jax.custom_vjp
def look_up_whole(
    tables: Float[Array, "tables 256 gates"], values: Float[Array, "tables batch"]
) -> Float[Array, "batch gates"]:
    """``bunch.look_up`` of whole values, with a slope in them, that of the line between the rows on either side.

    None in the tables: in a loop it would cost a sum of whole tables at every step.
    """
    return look_up(tables, values.astype(jnp.int32))


def _look_up_forward(tables, values):
    return look_up_whole(tables, values), (tables, values.astype(jnp.int32))


def _look_up_backward(residuals, gradient):
    tables, indices = residuals
    above, below = jnp.minimum(indices + 1, sampling.NUM_INDICES - 1), jnp.maximum(indices - 1, 0)
    flat, first = tables.reshape(-1, tables.shape[-1]), sampling.NUM_INDICES * jnp.arange(len(tables))[:, None]
    rise = jnp.take(flat, first + above, axis=0) - jnp.take(flat, first + below, axis=0)
    slope = jnp.einsum("tbg,bg->tb", rise, gradient) / (above - below)
    return jnp.zeros_like(tables), bounded(slope, len(gradient))


look_up_whole.defvjp(_look_up_forward, _look_up_backward)


def drawn(
    index: Int[Array, "..."], logits: Float[Array, "... 8"], within: Float[Array, "..."], confinement: float
) -> Float[Array, "..."]:
    """An index that was drawn, with a slope in the logits of the nodes on its path.

    It stands for a value of the distribution that is even between indices, and moves so that its quantile stays
    (M. Figurnov, S. Mohamed and A. Mnih, "Implicit Reparameterization Gradients", 2018).

    Args:
      within: where the value lies between this index and the next, uniform in [0, 1).
      confinement: as for ``sampling.thresholds``.
    """
    bits = sampling.path(index)[1]
    ones = sampling.confined(logits, confinement)
    chosen = jnp.where(bits == 1, ones, 1 - ones)
    likely, quantile = jnp.ones_like(within), jnp.zeros_like(within)
    for level in range(sampling.NUM_BITS):
        quantile += bits[..., level] * likely * (1 - ones[..., level])
        likely *= chosen[..., level]
    quantile += within * likely
    moved = (quantile - jax.lax.stop_gradient(quantile)) / jnp.maximum(jax.lax.stop_gradient(likely), RAREST)
    return index - moved
