"""First-order emphasis filters, exact for a frame or a whole signal, and the cutting of signals into blocks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdred.config import PREEMPHASIS


def preemphasize(
    x: Float[Array, "... samples"], memory: Float[Array, "..."] | float = 0.0
) -> tuple[Float[Array, "... samples"], Float[Array, "..."]]:
    """``y[n] = x[n] - 0.85 x[n-1]``. ``memory`` is ``x[-1]``; returns ``y`` and the next memory."""
    before = jnp.broadcast_to(memory, x.shape[:-1])[..., None]
    delayed = jnp.concatenate([before, x], axis=-1)
    return x - PREEMPHASIS * delayed[..., :-1], delayed[..., -1]


def deemphasize(
    y: Float[Array, "... samples"], memory: Float[Array, "..."] | float = 0.0
) -> tuple[Float[Array, "... samples"], Float[Array, "..."]]:
    """``x[n] = y[n] + 0.85 x[n-1]``, the inverse of ``preemphasize``.

    ``memory`` is ``x[-1]``; returns ``x`` and the next memory. Runs in parallel over the samples.
    """

    def join(first, second):
        decay_1, sum_1 = first
        decay_2, sum_2 = second
        return decay_1 * decay_2, decay_2 * sum_1 + sum_2

    decay = jnp.full_like(y, PREEMPHASIS)
    decays, x = jax.lax.associative_scan(join, (decay, y), axis=-1)
    x = x + decays * jnp.broadcast_to(memory, y.shape[:-1])[..., None]
    return x, x[..., -1]


def overlap(blocks: Float[Array, "... blocks size"], count: int) -> Float[Array, "... windows length"]:
    """Windows of ``count`` successive blocks, one block apart: ``blocks - count + 1`` of length ``count * size``."""
    windows = blocks.shape[-2] - count + 1
    return jnp.concatenate([blocks[..., i : i + windows, :] for i in range(count)], axis=-1)
