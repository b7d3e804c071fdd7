"""From a trained RDO-VAE to the one that is shipped: dead dimensions pruned, coding tables in 8 bits.

The tables are integers because sender and receiver must agree on every probability; the rest stays float.
"""

import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool

from jdred import weights
from jdred.config import NUM_LEVELS
from jdred.rdovae import RDOVAE
from jdred.rdovae.quantizer import Quantizer
from jdred.rdovae.tables import CodingTables, coded


def quantizer_tables(quantizer: Quantizer) -> tuple[np.ndarray, np.ndarray]:
    """``(p0, r)`` of every level and dimension as uint8 in units of 1/256."""
    at = quantizer.at(jnp.arange(NUM_LEVELS))

    def to_8_bits(x: np.ndarray) -> np.ndarray:
        return np.clip(np.round(256 * np.asarray(x)), 0, 255).astype(np.uint8)

    return to_8_bits(at.p0), to_8_bits(at.decay)


def alive(p0: np.ndarray, r: np.ndarray) -> Bool[np.ndarray, "dim"]:
    """Dimensions that are coded at one level at least."""
    return coded(p0, r).any(axis=0)


def _prune(name: str, array: np.ndarray, latent: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Drop the dead dimensions of one array of the model, by its name in either architecture."""
    level_row = np.ones(1, bool)
    if name.startswith("encoder/latent/") or name == "latent_quantizer/raw":
        return array[..., latent]
    if name.startswith("encoder/state_out/") or name == "state_quantizer/raw":
        return array[..., state]
    if name in ("decoder/input/kernel", "decoder/denses/0/kernel"):
        return array[np.concatenate([latent, level_row])[: len(array)]]
    if re.fullmatch(r"decoder/(start_hidden|start_grus/\d+)/kernel", name):
        return array[state]
    return array


def deploy(model: RDOVAE) -> tuple[RDOVAE, CodingTables]:
    """The pruned model (its configuration tells the new sizes) and its coding tables."""
    latent_p0, latent_r = quantizer_tables(model.latent_quantizer)
    state_p0, state_r = quantizer_tables(model.state_quantizer)
    latent, state = alive(latent_p0, latent_r), alive(state_p0, state_r)
    config = replace(model.config, latent_dim=int(latent.sum()), state_dim=int(state.sum()))
    template = weights.abstract(lambda: RDOVAE(config, rngs=nnx.Rngs(0)))
    arrays = {name: _prune(name, np.asarray(a), latent, state) for name, a in weights.flatten(model).items()}
    weights.check(template, arrays, "pruned RDO-VAE")
    tables = CodingTables(latent_p0[:, latent], latent_r[:, latent], state_p0[:, state], state_r[:, state])
    return weights.unflatten(template, {k: jnp.asarray(v) for k, v in arrays.items()}), tables
