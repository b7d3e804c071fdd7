"""libopus's layers as our modules, and back."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from jdred import weights
from jdred.config import FARGANConfig, PredictorConfig, RDOVAEConfig
from jdred.libopus import LibopusError, places
from jdred.libopus.places import Place
from jdred.plc.predictor import Predictor
from jdred.rdovae import RDOVAE
from jdred.rdovae.quantizer import raw_parameters
from jdred.rdovae.tables import CodingTables, QuantizerTables
from jdred.vocoder.fargan import FARGAN

RDOVAE_CONFIG = RDOVAEConfig(latent_dim=25, state_dim=50, integer_tables=True)
"""The RDO-VAE of libopus 1.6."""
PADDED_TO = 8
"""libopus pads the outputs of its 8-bit layers with zeros to multiples of this."""
Module = TypeVar("Module", bound=nnx.Module)


class Linear(NamedTuple):
    """A layer in plain numbers: ``y = W x + b``; of tables and convolutions over images, the arrays as they are."""

    W: Float[np.ndarray, "outputs inputs"]
    b: Float[np.ndarray, "outputs"]


Layers = Mapping[str, Linear]
"""By libopus's name."""


def fargan(layers: Layers) -> FARGAN:
    """The vocoder. Raises ``LibopusError``."""
    return _build(FARGAN, FARGANConfig(), places.FARGAN, layers)


def predictor(layers: Layers) -> Predictor:
    """The predictor of concealment. Raises ``LibopusError``."""
    return _build(Predictor, PredictorConfig(), places.PREDICTOR, layers)


def rdovae(layers: Layers, latent: QuantizerTables, state: QuantizerTables) -> tuple[RDOVAE, CodingTables]:
    """Encoder, decoder and quantisers, and the coding tables of its payloads. Raises ``LibopusError``."""
    extra = {"latent_quantizer/raw": raw_parameters(latent), "state_quantizer/raw": raw_parameters(state)}
    model = _build(RDOVAE, RDOVAE_CONFIG, places.RDOVAE, layers, extra)
    return model, CodingTables(latent.p0, latent.r, state.p0, state.r)


def template(module: type[Module], config: Any) -> Module:
    """The structure of a module of ours, without numbers."""
    return weights.abstract(lambda: module(config, rngs=nnx.Rngs(0)))


def _build(
    module: type[Module],
    config: Any,
    where: tuple[Place, ...],
    layers: Layers,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Module:
    structure = template(module, config)
    shapes = {name: leaf.shape for name, leaf in weights.flatten(structure).items()}
    missing = sorted(place.layer for place in where if place.layer not in layers)
    if missing:
        raise LibopusError(f"{module.__name__} of libopus 1.6: missing layers {missing[:5]} ({len(missing)} in all)")
    arrays = dict(extra or {})
    for place in where:
        arrays |= _ours(place, layers[place.layer], shapes)
    try:
        weights.check(structure, arrays, f"{module.__name__} of libopus 1.6")
    except weights.CheckpointError as error:
        raise LibopusError(str(error)) from error
    return weights.unflatten(structure, {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()})


def _ours(place: Place, layer: Linear, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A layer as the arrays of our module that it stands for."""
    W, b = np.asarray(layer.W), np.asarray(layer.b)
    if place.kind == "linear":
        W = W.T
        outputs = shapes[place.kernel][-1]
        if outputs < W.shape[-1] < outputs + PADDED_TO:  # Nothing reads what pads them.
            W, b = W[:, :outputs], b[:outputs]
    if place.bias is None and np.any(b):
        raise LibopusError(f"{place.layer}: expected a bias of zeros, found values up to {np.abs(b).max():.3g}")
    return {place.kernel: W} | ({place.bias: b} if place.bias else {})
