"""The networks of one link, together, and how they are restored."""

import json
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jdred import weights
from jdred.config import FARGANConfig, LPCNetConfig, PredictorConfig, RDOVAEConfig
from jdred.plc.predictor import Predictor
from jdred.rdovae import RDOVAE
from jdred.rdovae.deploy import deploy
from jdred.rdovae.tables import CodingTables
from jdred.vocoder import Vocoder
from jdred.vocoder.fargan import FARGAN
from jdred.vocoder.lpcnet import LPCNet, fold

TABLES = "tables/"


class Models(NamedTuple):
    """Everything that a sender and a receiver must share. A pytree, so it goes into compiled functions as it is."""

    rdovae: RDOVAE
    tables: CodingTables
    """8-bit probabilities of the payload's symbols."""
    vocoder: Vocoder
    predictor: Predictor


def load(
    name: str = "default", *, rdovae: str | None = None, vocoder: str | None = None, predictor: str | None = None
) -> Models:
    """Restore a shipped set of models.

    Args:
      name: a ``.json`` in ``jdred/weights`` that names one weight file a part.
      rdovae, vocoder, predictor: other weights for a part, by shipped name or path.
    Raises:
      CheckpointError: no such set, or a file that does not fit.
    """
    path = weights.FOLDER / f"{name}.json"
    if not path.is_file():
        raise weights.CheckpointError(f"no model set {name!r} in {weights.FOLDER}")
    parts = json.loads(path.read_text())
    coder, tables = load_rdovae(rdovae or parts["rdovae"])
    return Models(
        coder, tables, load_vocoder(vocoder or parts["vocoder"]), load_predictor(predictor or parts["predictor"])
    )


def load_rdovae(name: str) -> tuple[RDOVAE, CodingTables]:
    """An RDO-VAE and its coding tables, by shipped name or path; one fresh from training is deployed on the way."""
    arrays, config = _read(name, "rdovae")
    tables = {k[len(TABLES) :]: np.asarray(arrays.pop(k)) for k in list(arrays) if k.startswith(TABLES)}
    rdovae = _restore(name, RDOVAE, RDOVAEConfig(**config["model"]), arrays)
    if not tables:
        return deploy(rdovae)
    if sorted(tables) != sorted(CodingTables._fields):
        raise weights.CheckpointError(f"{name}: expected coding tables {CodingTables._fields}, found {sorted(tables)}")
    return rdovae, CodingTables(**tables)


def load_vocoder(name: str) -> Vocoder:
    """A vocoder ready to speak, by shipped name or path."""
    arrays, config = _read(name, "lpcnet", "fargan")
    if config["kind"] == "fargan":
        return _restore(name, FARGAN, FARGANConfig(**config["model"]), arrays)
    return fold(_restore(name, LPCNet, LPCNetConfig(**config["model"]), arrays))


def load_predictor(name: str) -> Predictor:
    """A PLC predictor, by shipped name or path."""
    arrays, config = _read(name, "plc")
    return _restore(name, Predictor, PredictorConfig(**config["model"]), arrays)


def _read(name: str, *kinds: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, config = weights.read(name)
    if config.get("kind") not in kinds:
        raise weights.CheckpointError(
            f"{name}: expected weights of kind {' or '.join(kinds)}, found {config.get('kind')!r}"
        )
    return arrays, config


def _restore(name: str, module: type, config: Any, arrays: dict[str, np.ndarray]) -> Any:
    template = weights.abstract(lambda: module(config, rngs=nnx.Rngs(0)))
    weights.check(template, arrays, name)
    return weights.unflatten(template, {k: jnp.asarray(v) for k, v in arrays.items()})
