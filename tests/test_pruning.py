"""Pruning FARGAN: what stays is what spans the rest, and nothing is lost where the rest can be put together."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_FARGAN, pulses
from flax import nnx

from jdred import weights
from jdred.training.fargan import speak
from jdred.training.pruning import Activations, Kept, activations, choose, prune, reconstruction, resize, select_units
from jdred.vocoder.fargan import FARGAN, Layers

KEPT = Kept(TINY_FARGAN.condition, TINY_FARGAN.first, TINY_FARGAN.grus, TINY_FARGAN.dense)
WIDTHS = Activations(
    TINY_FARGAN.condition,
    Layers(KEPT.first, KEPT.first, KEPT.grus, KEPT.grus, KEPT.dense, KEPT.dense),
)
SMALLER = replace(TINY_FARGAN, condition=4, first=6, grus=(4, 4, 3), dense=5)


@pytest.fixture(scope="module")
def model():
    return FARGAN(TINY_FARGAN, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    return pulses(rows=5)


@pytest.fixture(scope="module")
def seen(model, batch):
    return jax.jit(activations)(model, batch)


def test_units_that_others_span_are_left_out_and_put_together_from_them():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(50, 3))
    mixture = np.array([[1.0, 0.2, 0, 0], [0, 0.3, 1, 0], [0, -0.1, 0, 1]])  # unit 1 is a sum of the others
    values = own @ mixture
    kept = select_units(values.reshape(5, 10, 4), 3)
    np.testing.assert_array_equal(kept, [0, 2, 3])
    matrix = reconstruction(values, kept)
    np.testing.assert_allclose(values[:, kept] @ matrix, values, atol=1e-3)
    np.testing.assert_array_equal(matrix[:, kept], np.eye(3))


def test_a_network_that_keeps_all_units_says_the_same(model, seen, batch):
    same = prune(model, seen, choose(model, seen, TINY_FARGAN))
    for name, array in weights.flatten(model).items():
        np.testing.assert_allclose(weights.flatten(same)[name], array, atol=1e-6, err_msg=name)


def test_units_that_repeat_others_cost_nothing(model, batch):
    """Of a network in which every unit has a twin, and both have half a say, one of each pair is kept."""
    half_a_say = jax.tree.map(lambda width: np.repeat(np.eye(width), 2, axis=0) / 2, WIDTHS)
    twins = jax.tree.map(lambda width: np.repeat(np.arange(width), 2), KEPT)
    wide = resize(model, half_a_say, twins)
    assert wide.config.grus == tuple(2 * width for width in TINY_FARGAN.grus)
    truth, wanted = jax.jit(speak)(model, batch)
    np.testing.assert_allclose(jax.jit(speak)(wide, batch)[1], wanted, atol=1e-5)
    pruned = prune(wide, jax.jit(activations)(wide, batch), jax.tree.map(lambda width: 2 * np.arange(width), KEPT))
    assert pruned.config == TINY_FARGAN
    np.testing.assert_allclose(jax.jit(speak)(pruned, batch)[1], wanted, atol=2e-3)
    assert np.abs(wanted - truth).max() > 0.02


def test_the_pruned_network_has_the_sizes_asked_for(model, seen, batch):
    pruned = prune(model, seen, choose(model, seen, SMALLER))
    assert pruned.config == SMALLER
    weights.check(FARGAN(SMALLER, rngs=nnx.Rngs(0)), weights.flatten(pruned), "pruned")
    assert np.isfinite(jax.jit(speak)(pruned, batch)[1]).all()


def test_the_layers_seen_are_those_that_speak(model, seen, batch):
    _, said = jax.jit(speak)(model, batch)
    gain = jnp.exp(model.subframe.gain(seen.condition))
    again = gain * jnp.tanh(model.subframe.output(seen.layers.dense))
    free = jnp.moveaxis(again[6:], 0, 1).reshape(2, -1)
    np.testing.assert_allclose(free, said[:, -free.shape[1] :], atol=1e-5)


def test_what_cannot_be_pruned_is_refused(model, seen):
    with pytest.raises(ValueError, match="differ in condition, first, grus, dense only"):
        choose(model, seen, replace(SMALLER, condition_conv=5))
    with pytest.raises(ValueError, match="differ in condition, first, grus, dense only"):
        choose(model, seen, replace(SMALLER, grus=(4, 4)))
    with pytest.raises(ValueError, match="expected dense of up to 6, found 7"):
        choose(model, seen, replace(SMALLER, dense=7))
