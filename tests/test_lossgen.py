"""The learned generator of bursty losses: network, synthetic data, training, traces."""

from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdred import weights
from jdred.config import FitConfig, LossGeneratorConfig, NetworkConfig, TrainConfig
from jdred.link import lossgen
from jdred.link.channel import burst_lengths
from jdred.link.lossgen import LossGenerator, LossInput, draw_learned_trace, generate
from jdred.link.network import losses
from jdred.streaming import batch_state
from jdred.training.lossgen import LossSettings, LossTask, draw_sequences
from jdred.training.run import train

SMALL = LossSettings(LossGeneratorConfig(4, 6, 8), batch=8, packets=60, validation_sequences=16)


@pytest.fixture(scope="module")
def generator():
    return LossGenerator(LossGeneratorConfig(4, 6, 8), rngs=nnx.Rngs(0))


def test_the_network_is_that_of_libopus():
    template = weights.abstract(lambda: LossGenerator(LossGeneratorConfig(), rngs=nnx.Rngs(0)))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(template)) == 6105


def test_scan_is_step_after_step(generator, rng):
    xs = LossInput(jnp.asarray(rng.integers(0, 2, (7, 3)), jnp.float32), jnp.asarray(rng.random((7, 3)), jnp.float32))
    state = batch_state(generator.init_state(), (3,))
    last, together = generator.scan(state, xs)
    final, single = jax.lax.scan(generator.step, state, xs)
    np.testing.assert_allclose(together, single, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), last, final)


def test_draws_follow_the_likelihood():
    """With a network that always says the same, losses are independent; where it looks at the last, they are not."""

    class Fake:
        def __init__(self, stay):
            self.stay = stay

        def init_state(self):
            return jnp.zeros(())

        def step(self, state, x):
            return state, jnp.where(x.before > 0, self.stay, jnp.log(x.loss / (1 - x.loss)))

    calm = generate(Fake(jnp.log(0.25)), jax.random.key(0), 20_000, 0.2, warm_up=5)
    assert np.mean(calm) == pytest.approx(0.2, abs=0.02)
    assert burst_lengths(calm).mean() == pytest.approx(1.25, rel=0.05)
    bursty = generate(Fake(jnp.log(4.0)), jax.random.key(0), 20_000, 0.1, warm_up=5)
    assert burst_lengths(bursty).mean() == pytest.approx(5, rel=0.1)


def test_synthetic_sequences_are_told_what_came_out():
    settings = LossSettings(jitter=0.0, batch=8)
    lost, told = draw_sequences(jax.random.key(0), 64, settings)
    np.testing.assert_allclose(told, np.broadcast_to(lost.mean(1, keepdims=True), lost.shape), atol=1e-6)
    shares = np.asarray(lost.mean(1))
    assert shares.min() < 0.1
    assert 0.45 < shares.max() < 0.75
    bursts = [burst_lengths(row).mean() for row in np.asarray(lost) if row.any()]
    assert min(bursts) < 2
    assert max(bursts) > 6
    off = draw_sequences(jax.random.key(0), 64, LossSettings(jitter=0.1, batch=8))[1]
    assert 0 < np.abs(off - told).mean() < 0.05
    assert off.min() >= 0
    assert off.max() <= 1


def test_training_learns_that_losses_cluster(tmp_path):
    task = LossTask(SMALL)
    before = task.validate(task.init(0))
    fit = FitConfig(total_steps=120, validate_every=120, checkpoint_every=120, log_every=60, ema=0.9)
    after = train("lossgen", TrainConfig(tmp_path, fit=fit), SMALL)
    assert after["loss"] < before["loss"]
    assert after["loss"] < after["independent_loss"] + 0.02
    restored = lossgen.load(tmp_path / "best.npz")
    trace = draw_learned_trace(2000, 0.3, seed=1, generator=restored)
    assert trace.dtype == np.uint8
    assert 0.1 < trace.mean() < 0.6
    np.testing.assert_array_equal(trace, draw_learned_trace(2000, 0.3, seed=1, generator=restored))
    assert np.any(trace != draw_learned_trace(2000, 0.3, seed=2, generator=restored))


@pytest.mark.parametrize(("packets", "loss"), [(0, 0.1), (10, -0.1), (10, 0.7), (10, float("nan"))])
def test_bad_arguments_are_refused(generator, packets, loss):
    with pytest.raises(ValueError, match="expected packets"):
        draw_learned_trace(packets, loss, generator=generator)
    with pytest.raises(weights.CheckpointError):
        lossgen.load("plc")


def test_the_shipped_generator_is_bursty_and_keeps_the_share():
    lost = np.array(list(islice(losses(NetworkConfig(loss=0.2, learned=True, seed=1)), 4096 + 100)))
    assert 0.1 < lost.mean() < 0.3
    assert burst_lengths(lost).mean() > 1.1 / (1 - lost.mean())
    shares = [draw_learned_trace(4096, share, seed=2).mean() for share in (0.02, 0.2, 0.5)]
    assert shares == sorted(shares)


def test_network_settings():
    with pytest.raises(ValueError, match="duplicate must be"):
        NetworkConfig(duplicate=1.5)
