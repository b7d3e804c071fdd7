"""The quantisers of an RDO-VAE as libopus's tables of bytes, which it compiles in, and back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdred.config import NUM_LEVELS
from jdred.libopus import LibopusError
from jdred.libopus.records import DRED_VERSION
from jdred.libopus.storage import Arrays
from jdred.rdovae import RDOVAE
from jdred.rdovae.quantizer import Quantizer
from jdred.rdovae.tables import CodingTables, QuantizerTables

FIELDS = dict(zip(QuantizerTables._fields, ("quant_scales_q8", "dead_zone_q8", "r_q8", "p0_q8"), strict=True))
"""libopus's names of ours."""
PARTS = ("latent", "state")
_TOP = 255 / 256


def array_name(part: str, field: str) -> str:
    """The C array of a table; ``part`` is latent or state, ``field`` one of ``QuantizerTables``."""
    return f"dred_{part}_{FIELDS[field]}"


def find(arrays: Arrays) -> tuple[QuantizerTables, QuantizerTables]:
    """Tables of latents and states among libopus's arrays. Raises ``LibopusError``: missing, or of another size."""
    names = [array_name(part, field) for part in PARTS for field in FIELDS]
    if missing := [name for name in names if name not in arrays]:
        raise LibopusError(
            f"no tables of the quantisers ({missing[0]}, ...): a weights blob holds none; give libopus's "
            "dred_rdovae_stats_data.c, or the .json that came with an exported blob"
        )
    return tuple(QuantizerTables(*(_table(arrays, part, field) for field in FIELDS)) for part in PARTS)


def _table(arrays: Arrays, part: str, field: str) -> np.ndarray:
    name = array_name(part, field)
    table = np.asarray(arrays[name])
    if table.size == 0 or table.size % NUM_LEVELS or table.dtype.kind not in "iu" or not 0 <= table.min() <= 255:
        raise LibopusError(
            f"{name}: expected bytes for {NUM_LEVELS} levels, found {table.dtype} of shape {table.shape}"
        )
    return table.reshape(NUM_LEVELS, -1).astype(np.uint8)


def of_model(model: RDOVAE, tables: CodingTables) -> tuple[RDOVAE, QuantizerTables, QuantizerTables]:
    """A model whose quantisers are bytes, and these bytes.

    Where they are not yet, every dimension is rescaled so that its largest scale is 255/256; the last layers of the
    encoder and the first ones of the decoder take the factors.
    """
    factors = [_factors(quantizer) for quantizer in (model.latent_quantizer, model.state_quantizer)]
    latent = _bytes(model.latent_quantizer, factors[0], tables.latent_p0, tables.latent_r)
    state = _bytes(model.state_quantizer, factors[1], tables.state_p0, tables.state_r)
    model = jax.tree.map(lambda leaf: leaf, model)
    for head, factor in ((model.encoder.latent, factors[0]), (model.encoder.state_out, factors[1])):
        head.kernel[...] = head.kernel[...] * factor
        head.bias[...] = head.bias[...] * factor
    for first, factor in ((model.decoder.input, factors[0]), (model.decoder.start_hidden, factors[1])):
        kernel = first.kernel[...]
        first.kernel[...] = kernel / jnp.ones((len(kernel), 1)).at[: len(factor), 0].set(factor)
    return model, latent, state


def _factors(quantizer: Quantizer) -> np.ndarray:
    """What the values of each dimension must be multiplied by for scales up to 255/256."""
    scale = np.asarray(quantizer.at(jnp.arange(NUM_LEVELS)).scale)
    return np.ones(scale.shape[-1], np.float32) if quantizer.integer else scale.max(axis=0) / np.float32(_TOP)


def _bytes(quantizer: Quantizer, factor: np.ndarray, p0: np.ndarray, r: np.ndarray) -> QuantizerTables:
    at = quantizer.at(jnp.arange(NUM_LEVELS))
    scale, dead_zone = (np.clip(np.round(256 * np.asarray(x)), 0, 255) for x in (at.scale / factor, at.dead_zone))
    return QuantizerTables(scale.astype(np.uint8), dead_zone.astype(np.uint8), np.asarray(r), np.asarray(p0))


def to_json(latent: QuantizerTables, state: QuantizerTables) -> dict[str, Any]:
    """Tables by their C names, ``[level][dimension]``, and the sizes that libopus compiles in with them."""
    tables = {
        array_name(part, field): np.asarray(table).tolist()
        for part, all_tables in zip(PARTS, (latent, state), strict=True)
        for field, table in all_tables._asdict().items()
    }
    dims = {"DRED_LATENT_DIM": latent.scale.shape[1], "DRED_STATE_DIM": state.scale.shape[1]}
    padded = {name.replace("DRED_", "DRED_PADDED_"): -(-size // 8) * 8 for name, size in dims.items()}
    return {"dred_version": DRED_VERSION, "constants": dims | padded, "tables": tables}


def from_json(data: Any, source: str) -> dict[str, np.ndarray]:
    """The arrays that ``to_json`` wrote. Raises ``LibopusError``."""
    try:
        return {name: np.array(table) for name, table in data["tables"].items()}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise LibopusError(f"{source}: expected tables of quantisers as export-libopus writes them") from error
