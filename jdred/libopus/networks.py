"""libopus's layers as our modules, and back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jdred import weights
from jdred.config import FARGANConfig, PitchNetworkConfig, PredictorConfig, RDOVAEConfig
from jdred.dsp.pitchnet import PitchNetwork
from jdred.libopus import LibopusError, places, storage
from jdred.libopus.places import Place
from jdred.libopus.storage import Arrays, Linear
from jdred.plc.predictor import Predictor
from jdred.rdovae import RDOVAE
from jdred.rdovae.quantizer import raw_parameters
from jdred.rdovae.tables import CodingTables, QuantizerTables
from jdred.vocoder.fargan import FARGAN

Module = TypeVar("Module", bound=nnx.Module)
Layers = Mapping[str, Linear]
"""By libopus's name."""


@dataclass(frozen=True)
class Network:
    """One of libopus 1.6's networks as a preset of a module of ours."""

    kind: str
    """Of its weight files."""
    build: Callable[..., nnx.Module]
    config: Any
    places: tuple[Place, ...]

    def template(self) -> nnx.Module:
        """Its structure, without numbers."""
        return weights.abstract(lambda: self.build(self.config, rngs=nnx.Rngs(0)))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of its arrays."""
        return {name: tuple(leaf.shape) for name, leaf in weights.flatten(self.template()).items()}


def rdovae_network(latent_dim: int, state_dim: int) -> Network:
    """The RDO-VAE of libopus 1.6 with other sizes of latent and state, which a build of libopus could have."""
    config = RDOVAEConfig(latent_dim=latent_dim, state_dim=state_dim, integer_tables=True)
    return Network("rdovae", RDOVAE, config, places.RDOVAE)


FARGAN_1_6 = Network("fargan", FARGAN, FARGANConfig(), places.FARGAN)
PREDICTOR_1_6 = Network("plc", Predictor, PredictorConfig(), places.PREDICTOR)
PITCH_1_6 = Network("pitch", PitchNetwork, PitchNetworkConfig(), places.PITCH)
RDOVAE_1_6 = rdovae_network(25, 50)
WITHOUT_TABLES = (PITCH_1_6, FARGAN_1_6, PREDICTOR_1_6)
NETWORKS = (*WITHOUT_TABLES, RDOVAE_1_6)
"""In the order of libopus's weights file."""


def load_layers(arrays: Arrays, networks: tuple[Network, ...] = NETWORKS) -> Layers:
    """All layers of the networks from libopus's arrays. Raises ``LibopusError``: missing, or of another size."""
    layers = {}
    for network in networks:
        shapes = network.shapes()
        for place in network.places:
            kernel = shapes[place.kernel]
            inputs = kernel[0] if place.kind == "linear" else 0
            layers[place.layer] = storage.load(arrays, place, inputs, kernel[-1])
    return layers


def fargan(layers: Layers) -> FARGAN:
    """The vocoder. Raises ``LibopusError``."""
    return _build(FARGAN_1_6, layers)


def predictor(layers: Layers) -> Predictor:
    """The predictor of concealment. Raises ``LibopusError``."""
    return _build(PREDICTOR_1_6, layers)


def pitch_network(layers: Layers) -> PitchNetwork:
    """The pitch tracker. Raises ``LibopusError``."""
    return _build(PITCH_1_6, layers)


def rdovae(layers: Layers, latent: QuantizerTables, state: QuantizerTables) -> tuple[RDOVAE, CodingTables]:
    """Encoder, decoder and quantisers, and the coding tables of its payloads. Raises ``LibopusError``."""
    raw = {"latent_quantizer/raw": raw_parameters(latent), "state_quantizer/raw": raw_parameters(state)}
    network = rdovae_network(latent.scale.shape[1], state.scale.shape[1])
    return _build(network, layers, raw), CodingTables(latent.p0, latent.r, state.p0, state.r)


def _build(network: Network, layers: Layers, arrays: Mapping[str, np.ndarray] | None = None) -> Any:
    name, shapes = network.build.__name__, network.shapes()
    missing = sorted(place.layer for place in network.places if place.layer not in layers)
    if missing:
        raise LibopusError(f"{name} of libopus 1.6: {len(missing)} layers are missing, the first {missing[:5]}")
    arrays = dict(arrays or {})
    for place in network.places:
        arrays |= _ours(place, layers[place.layer], shapes[place.kernel])
    template = network.template()
    try:
        weights.check(template, arrays, f"{name} of libopus 1.6")
    except weights.CheckpointError as error:
        raise LibopusError(str(error)) from error
    return weights.unflatten(template, {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()})


def _ours(place: Place, layer: Linear, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A layer as the arrays of our module that it stands for."""
    W, b = np.asarray(layer.W), np.asarray(layer.b)
    if place.kind == "conv2d":  # outputs, inputs, time, lag
        W = W.reshape(shape[-1], -1, 3, 3).transpose(2, 3, 1, 0).reshape(shape)
    elif place.kind == "table":
        W = W.reshape(shape)
    else:
        W, b = W.T[:, : shape[-1]], b[: shape[-1]]  # Nothing reads the padding of outputs.
    if place.bias is None and np.any(b):
        raise LibopusError(f"{place.layer}: expected a bias of zeros, found values up to {np.abs(b).max():.3g}")
    return {place.kernel: W} | ({place.bias: b} if place.bias else {})


def _theirs(place: Place, arrays: Arrays) -> Linear:
    """The inverse of ``_ours``."""
    kernel = np.asarray(arrays[place.kernel])
    b = np.asarray(arrays[place.bias]) if place.bias else np.zeros(kernel.shape[-1], np.float32)
    if place.kind == "conv2d":
        return Linear(kernel.reshape(3, 3, -1, kernel.shape[-1]).transpose(3, 2, 0, 1), b)
    return Linear(kernel if place.kind == "table" else kernel.T, b)


def rounded(module: Module, network: Network) -> Module:
    """The same module with the activations that libopus keeps in 8 bits rounded to steps of 1/127.

    For comparison with libopus, and for training (gradients pass) what shall run there.
    """
    module = jax.tree.map(lambda leaf: leaf, module)
    for place in network.places:
        if place.storage != "float":
            reduce(_child, place.module.split("/"), module).rounded = True
    return module


def _child(parent: Any, name: str) -> Any:
    return parent[int(name)] if name.isdigit() else getattr(parent, name)


def store_module(module: nnx.Module, network: Network) -> dict[str, np.ndarray]:
    """A module of ours as libopus's arrays; sizes are those of the module."""
    arrays = {name: np.asarray(leaf) for name, leaf in weights.flatten(module).items()}
    stored: dict[str, np.ndarray] = {}
    for place in network.places:
        stored |= storage.store(_theirs(place, arrays), place)
    return stored


def rounding_loss(module: nnx.Module, network: Network, stored: Arrays) -> float:
    """Relative RMS error of a module's weights after ``store_module``."""
    shapes = {name: tuple(leaf.shape) for name, leaf in weights.flatten(module).items()}
    error = total = 0.0
    for place in network.places:
        if place.storage != "float":
            kernel = np.asarray(weights.flatten(module)[place.kernel], np.float64)
            rounded = storage.load(stored, place, *shapes[place.kernel]).W.T
            error, total = error + np.sum((rounded - kernel) ** 2), total + np.sum(kernel**2)
    return float(np.sqrt(error / total))
