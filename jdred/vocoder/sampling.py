"""A distribution over 256 mu-law indices as a binary tree of 8 levels, most significant bit first.

The tree stands in heap order: the root is node 1 and node i has the children 2 i (bit 0) and 2 i + 1 (bit 1), so the
leaf of index e is 256 + e and entry 0 of an array of nodes is never used. The logit of a node is that of bit 1. To
draw an index costs 8 comparisons, whatever the 256 probabilities are (J.-M. Valin, U. Isik, P. Smaragdis and
A. Krishnaswamy, "Neural Speech Synthesis on a Shoestring", ICASSP 2022).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NUM_BITS = 8
NUM_INDICES = 1 << NUM_BITS
CONFINEMENT = 0.025
"""A branch less likely than this is never taken: it stands for temperature and tail cut of other samplers."""


def path(index: Int[Array, "..."]) -> tuple[Int[Array, "... 8"], Int[Array, "... 8"]]:
    """The nodes on the way from the root to an index, 0 .. 255, and the bits chosen there."""
    below = jnp.arange(NUM_BITS, 0, -1)
    leaf = NUM_INDICES + index[..., None]
    return leaf >> below, (leaf >> (below - 1)) & 1


def between(value: Float[Array, "..."]) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
    """The index below a value 0 .. 255, at most 254, and how far on the way to the next it lies, 0 .. 1."""
    low = jnp.clip(jnp.floor(jax.lax.stop_gradient(value)), 0, NUM_INDICES - 2)
    return low.astype(jnp.int32), value - low


def log_likelihood(
    logits: Float[Array, "... 256"], index: Int[Array, "..."] | Float[Array, "..."]
) -> Float[Array, "..."]:
    """Log of the probability of an index, in nats, from the 8 nodes on its path.

    Between two indices probabilities are interpolated: a value that is not whole has a likelihood with a slope.
    """
    if jnp.issubdtype(index.dtype, jnp.floating):
        low, part = between(index)
        below, above = log_likelihood(logits, low), log_likelihood(logits, low + 1)
        larger = jax.lax.stop_gradient(jnp.maximum(below, above))
        return larger + jnp.log((1 - part) * jnp.exp(below - larger) + part * jnp.exp(above - larger))
    nodes, bits = path(index)
    chosen = jnp.take_along_axis(logits, nodes, axis=-1)
    return jax.nn.log_sigmoid(jnp.where(bits == 1, chosen, -chosen)).sum(axis=-1)


def probabilities(logits: Float[Array, "... 256"]) -> Float[Array, "... 256"]:
    """The whole distribution: likelihoods of all indices."""
    p = jnp.ones(logits.shape[:-1] + (1,))
    for level in range(NUM_BITS):
        one = jax.nn.sigmoid(logits[..., 1 << level : 2 << level])
        p = jnp.stack([p * (1 - one), p * one], axis=-1).reshape(logits.shape[:-1] + (2 << level,))
    return p


def thresholds(
    uniforms: Float[Array, "... 8"], confinement: float = CONFINEMENT, temperature: float = 1.0
) -> Float[Array, "... 8"]:
    """What the logits of the 8 levels must exceed for bit 1, from uniform numbers in [0, 1).

    Args:
      uniforms: 0.5 throughout always takes the likelier branch, for tests.
      confinement: 0 .. 0.5, branches less likely than this are never taken; 0 samples the exact distribution.
      temperature: > 0; divides the logits.
    """
    p = confinement + (1 - 2 * confinement) * uniforms
    return temperature * jax.scipy.special.logit(p)


def confined(logits: Float[Array, "..."], confinement: float) -> Float[Array, "..."]:
    """How likely bit 1 is by ``thresholds`` of uniform numbers at temperature 1."""
    return jnp.clip((jax.nn.sigmoid(logits) - confinement) / (1 - 2 * confinement), 0, 1)


def sample(logits: Float[Array, "... 256"], threshold: Float[Array, "... 8"]) -> Int[Array, "..."]:
    """The index, 0 .. 255, at the end of the path that the thresholds choose."""
    node = jnp.ones(logits.shape[:-1], jnp.int32)
    for level in range(NUM_BITS):
        logit = jnp.take_along_axis(logits, node[..., None], axis=-1)[..., 0]
        node = 2 * node + (logit > threshold[..., level])
    return node - NUM_INDICES
