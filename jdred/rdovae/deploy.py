"""From a trained RDO-VAE to the one that is shipped: dead dimensions pruned, coding tables in 8 bits.

The tables are integers because sender and receiver must agree on every probability; the rest stays float.
"""

import re
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int, UInt8

from jdred import weights
from jdred.config import NUM_LEVELS
from jdred.rdovae import RDOVAE
from jdred.rdovae.encoder import Encoded
from jdred.rdovae.quantizer import Quantizer, symbols
from jdred.rdovae.tables import CodingTables, coded

Table = tuple[UInt8[np.ndarray, "16 dim"], UInt8[np.ndarray, "16 dim"]]
"""``(p0, r)`` of every level and dimension in 1/256."""


def trained_table(quantizer: Quantizer) -> Table:
    """What training believes of the symbols."""
    at = quantizer.at(jnp.arange(NUM_LEVELS))
    return _to_8_bits(at.p0), _to_8_bits(at.decay)


def measured_table(symbols_at: Callable[[Int[Array, ""]], Int[Array, "count dim"]]) -> Table:
    """What symbols, given for any level, really are: the Laplace distribution that codes them shortest.

    A dimension that is hardly ever other than zero at a level is switched off there.
    """

    def level_statistics(level: Array) -> tuple[Array, Array]:
        size = jnp.abs(symbols_at(level))
        nonzero = jnp.sum(size > 0, axis=0)
        beyond_one = jnp.sum(size, axis=0) - nonzero
        # Half a count each: no estimate is ever exactly 0 or 1.
        return 1 - (nonzero + 0.5) / (len(size) + 1), (beyond_one + 0.5) / (beyond_one + nonzero + 1)

    p0, r = jax.lax.map(level_statistics, jnp.arange(NUM_LEVELS))
    return _to_8_bits(p0), np.maximum(_to_8_bits(r), 1)


def _to_8_bits(x: Array) -> UInt8[np.ndarray, "..."]:
    return np.clip(np.round(256 * np.asarray(x)), 0, 255).astype(np.uint8)


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


def deploy(model: RDOVAE, speech: Encoded | None = None) -> tuple[RDOVAE, CodingTables]:
    """The pruned model (its configuration tells the new sizes) and its coding tables.

    Args:
      speech: what the encoder makes of much speech, ``[count, dim]``; the tables are then measured on it.
    """
    if speech is None:
        latent_table, state_table = trained_table(model.latent_quantizer), trained_table(model.state_quantizer)
    else:
        latent_table = measured_table(lambda level: symbols(speech.latent, model.latent_quantizer.at(level)))
        state_table = measured_table(lambda level: model.state_symbols(speech.state, level))
    latent, state = alive(*latent_table), alive(*state_table)
    config = replace(model.config, latent_dim=int(latent.sum()), state_dim=int(state.sum()))
    template = weights.abstract(lambda: RDOVAE(config, rngs=nnx.Rngs(0)))
    arrays = {name: _prune(name, np.asarray(a), latent, state) for name, a in weights.flatten(model).items()}
    weights.check(template, arrays, "pruned RDO-VAE")
    tables = CodingTables(*(t[:, latent] for t in latent_table), *(t[:, state] for t in state_table))
    return weights.unflatten(template, {k: jnp.asarray(v) for k, v in arrays.items()}), tables
