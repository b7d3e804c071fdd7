"""LPCNet in blocks, in bunches and with linear prediction of its own: each against what it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdred.layers import GRU, gru_gates
from jdred.vocoder import sparse
from jdred.vocoder.sparse import BlockGRU

# The recurrence in blocks


@pytest.fixture(scope="module")
def blocks():
    return jax.jit(lambda: BlockGRU(3, 4 * sparse.BLOCK, (0.25, 0.5, 0.75), rngs=nnx.Rngs(0)))()


def whole_matrix(gru):
    parts = [pattern.whole(w) for pattern, w in zip(gru.product.gates, gru._weights(), strict=True)]
    return jnp.concatenate(parts, axis=1)


def test_blocks_are_where_the_pattern_says(blocks):
    matrix = np.asarray(jax.jit(whole_matrix)(blocks)).reshape(4, sparse.BLOCK, 3, 4, sparse.BLOCK)
    there = np.abs(matrix).max(axis=(1, 4)) > 0  # by block of the state, gate and block of the gate
    assert there.mean(axis=(0, 2)).tolist() == [0.25, 0.5, 0.75]
    assert there[np.arange(4), :, np.arange(4)].all()
    # As many in each column as in each row, and the weights as many as there are places.
    assert (there.sum(axis=0) == there.sum(axis=2).T).all()
    assert np.count_nonzero(matrix) == sum(w.size for w in blocks._weights())
    # Each step is about as large as with all weights.
    full = jax.jit(lambda: GRU(3, 4 * sparse.BLOCK, rngs=nnx.Rngs(0)))()
    assert np.linalg.norm(matrix) == pytest.approx(np.linalg.norm(full.recurrent[...]), rel=0.1)


@pytest.mark.parametrize("many", [0, sparse.MANY])
def test_block_recurrence_and_its_gradient_are_those_of_the_whole_matrix(blocks, many, monkeypatch):
    monkeypatch.setattr(sparse, "MANY", many)
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(5, 2, 3 * blocks.width)), jnp.float32)
    h, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, blocks.width), (5, 2, 1)))

    @jax.jit
    def by_blocks(gru, inputs, h):
        return jax.value_and_grad(lambda *a: (a[0].run(a[2], a[1])[1] * weight).sum(), argnums=(0, 1, 2))(
            gru, inputs, h
        )

    @jax.jit
    def by_steps(gru, inputs, h):
        def loss(gru, inputs, h):
            full = whole_matrix(gru)
            body = lambda h, x: (new := sparse_step(gru, full, h, x), new)  # noqa: E731
            return (jax.lax.scan(body, h, inputs)[1] * weight).sum()

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(gru, inputs, h)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        by_blocks(blocks, inputs, h),
        by_steps(blocks, inputs, h),
    )
    stepped = jax.jit(lambda gru, h, x: gru.advance(h, x))(blocks, h, inputs[0])
    np.testing.assert_allclose(stepped, sparse_step(blocks, whole_matrix(blocks), h, inputs[0]), atol=1e-5)


def sparse_step(gru, full, h, x):
    return gru_gates(x, h @ full + gru.recurrent_bias[...], h)
