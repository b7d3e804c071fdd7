"""Deployment of the RDO-VAE: what is pruned was never used, and the tables are those of the quantisers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdred.config import RDOVAEConfig
from jdred.rdovae import RDOVAE
from jdred.rdovae.deploy import deploy
from jdred.rdovae.encoder import Encoded
from jdred.rdovae.quantizer import DEAD_ZONE_UNIT
from jdred.weights import abstract

DENSE = RDOVAEConfig(latent_dim=5, state_dim=4, blocks=1, encoder_width=6, encoder_gru=6, encoder_conv=4,
                     decoder_width=6, decoder_gru=6, decoder_conv=4, state_hidden=6)  # fmt: skip
PAPER = RDOVAEConfig(architecture="paper", latent_dim=5, state_dim=4, blocks=1, encoder_width=6, encoder_gru=6,
                     decoder_width=6, decoder_gru=6, state_hidden=6, level_input=False)  # fmt: skip
LATENTS, STATES = [0, 2, 4], [0, 1, 3]
"""Dimensions that stay alive."""


def small(config: RDOVAEConfig) -> RDOVAE:
    """Random weights throughout."""
    rng = np.random.default_rng(1)
    template = abstract(lambda: RDOVAE(config, rngs=nnx.Rngs(0)))
    return jax.tree.map(lambda a: jnp.asarray(0.3 * rng.normal(size=a.shape), a.dtype), template)


def with_dead(model: RDOVAE) -> RDOVAE:
    """Everything but ``LATENTS`` and ``STATES`` rounds to zero at every level and has no decay."""
    for quantizer, kept in ((model.latent_quantizer, LATENTS), (model.state_quantizer, STATES)):
        raw = np.random.default_rng(0).normal(0, 0.3, quantizer.raw.shape).astype(np.float32)
        raw[:, 0] += 3.0
        dead = np.setdiff1d(np.arange(raw.shape[-1]), kept)
        raw[:, 0, dead], raw[:, 5, dead] = -20.0, -9.0
        quantizer.raw = nnx.Param(jnp.asarray(raw))
    return model


@pytest.fixture(params=[DENSE, PAPER], ids=["dense", "paper"])
def model(request):
    return with_dead(small(request.param))


def test_pruned_model_says_the_same(model, rng):
    pruned, tables = deploy(model)
    assert (pruned.config.latent_dim, pruned.config.state_dim) == (3, 3)
    assert tables.latent_p0.shape == tables.latent_r.shape == tables.state_p0.shape == tables.state_r.shape == (16, 3)
    pairs = rng.normal(size=(9, 40)).astype(np.float32)
    levels = jnp.array([2, 7, 15])

    @jax.jit
    def say(model):
        _, encoded = model.encoder.scan(model.encoder.init_state(), pairs)
        said = model.quantize(encoded.latent[8:2:-2], encoded.state[8], levels)
        return *said, model.reconstruct(*said, levels)

    (latents, state, rows), (kept_latents, kept_state, kept_rows) = say(model), say(pruned)
    assert np.any(latents[:, LATENTS])
    np.testing.assert_array_equal(latents[:, LATENTS], kept_latents)
    np.testing.assert_array_equal(np.asarray(state)[STATES], kept_state)
    assert not np.any(np.delete(latents, LATENTS, axis=1))
    assert not np.any(np.delete(state, STATES))
    np.testing.assert_allclose(rows, kept_rows, atol=1e-5)


def test_tables_are_the_distributions_in_8_bits():
    model = small(DENSE)
    raw = np.zeros((16, 6, 5), np.float32)
    raw[3, 5, 1] = np.log(0.8 / 0.2)  # decay 0.8
    raw[3, 4, 1] = np.log(0.6 / 0.4)  # theta 0.6: p0 = 1 - 0.8^0.8
    raw[9, 5, 2] = 20.0  # decay 1 does not fit into 8 bits
    model.latent_quantizer.raw = nnx.Param(jnp.asarray(raw))
    _, tables = deploy(model)
    assert tables.latent_r.dtype == tables.latent_p0.dtype == np.uint8
    assert (tables.latent_p0[0, 0], tables.latent_r[0, 0]) == (round(256 * (1 - 0.5**0.75)), 128)
    assert (tables.latent_p0[3, 1], tables.latent_r[3, 1]) == (round(256 * (1 - 0.8**0.8)), round(256 * 0.8))
    assert tables.latent_r[9, 2] == 255


def test_a_dimension_alive_at_one_level_stays():
    model = with_dead(small(DENSE))
    raw = np.array(model.latent_quantizer.raw[...])
    raw[12, 5, 1] = 0.0
    model.latent_quantizer.raw = nnx.Param(jnp.asarray(raw))
    pruned, tables = deploy(model)
    assert pruned.config.latent_dim == 4
    assert np.flatnonzero(tables.latent_r[:, 1]).tolist() == [12]
    at = pruned.latent_quantizer.at(jnp.asarray(12))
    np.testing.assert_allclose(at.dead_zone, DEAD_ZONE_UNIT * np.log1p(np.exp(raw[12, 1, [0, 1, 2, 4]])), rtol=1e-5)


@pytest.mark.parametrize("config", [DENSE, replace(PAPER, pvq_pulses=9)], ids=["dense", "paper"])
def test_measured_tables_are_those_of_the_symbols_that_are_sent(config, rng):
    """Also where the state is of pulses, the same at all levels."""
    model = small(config)
    speech = Encoded(*(np.float32(rng.laplace(size=(400, dim))) for dim in (5, 4)))
    pruned, tables = deploy(model, speech)
    assert (pruned.config.latent_dim, pruned.config.state_dim) == (5, 4)
    levels = jnp.array([3, 9])
    quantize = jax.jit(jax.vmap(model.quantize, in_axes=(0, 0, None)))
    latents, states = map(np.asarray, quantize(speech.latent[:, None].repeat(2, 1), speech.state, levels))
    for said, p0, r in (
        (states, tables.state_p0[3], tables.state_r[3]),
        (latents[:, 0], tables.latent_p0[3], tables.latent_r[3]),
        (latents[:, 1], tables.latent_p0[9], tables.latent_r[9]),
    ):
        np.testing.assert_allclose(p0 / 256, (said == 0).mean(axis=0), atol=0.01)
        further = np.maximum(np.abs(said) - 1, 0).sum(axis=0)
        np.testing.assert_allclose(r / 256, further / (further + (said != 0).sum(axis=0)), atol=0.03)
    same = bool((tables.state_p0 == tables.state_p0[0]).all())
    assert same == (config.pvq_pulses > 0)
