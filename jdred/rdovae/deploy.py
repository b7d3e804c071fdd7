"""From a trained RDO-VAE to the one that is shipped: dead dimensions pruned, coding tables in 8 bits.

The tables are integers because sender and receiver must agree on every probability; the rest stays float.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool

from jdred.config import NUM_LEVELS
from jdred.rdovae import RDOVAE
from jdred.rdovae.quantizer import Quantizer
from jdred.rdovae.tables import CodingTables

ALWAYS_ZERO_P0 = 255


def quantizer_tables(quantizer: Quantizer) -> tuple[np.ndarray, np.ndarray]:
    """``(p0, r)`` of every level and dimension as uint8 in units of 1/256."""
    at = quantizer.at(jnp.arange(NUM_LEVELS))

    def to_8_bits(x: np.ndarray) -> np.ndarray:
        return np.clip(np.round(256 * np.asarray(x)), 0, 255).astype(np.uint8)

    return to_8_bits(at.p0), to_8_bits(at.decay)


def alive(p0: np.ndarray, r: np.ndarray) -> Bool[np.ndarray, "dim"]:
    """Dimensions that are coded at one level at least."""
    return ((r > 0) & (p0 < ALWAYS_ZERO_P0)).any(axis=0)


def deploy(model: RDOVAE) -> tuple[RDOVAE, CodingTables]:
    """The pruned model (its configuration tells the new sizes) and its coding tables."""
    latent_p0, latent_r = quantizer_tables(model.latent_quantizer)
    state_p0, state_r = quantizer_tables(model.state_quantizer)
    latent, state = alive(latent_p0, latent_r), alive(state_p0, state_r)
    config = replace(model.config, latent_dim=int(latent.sum()), state_dim=int(state.sum()))
    pruned = RDOVAE(config, rngs=nnx.Rngs(0))
    _copy(pruned, model)
    _prune_heads(pruned, model, latent, state)
    tables = CodingTables(latent_p0[:, latent], latent_r[:, latent], state_p0[:, state], state_r[:, state])
    return pruned, tables
