"""Training the predictor through the vocoder: where the gap lies, what is played in it, and that it is learned from."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_FARGAN, write_fargan, write_prepared
from flax import nnx

from jdred.config import FRAME_SAMPLES, PACKET_SAMPLES, PREEMPHASIS, PredictorConfig
from jdred.dsp import INT16_SCALE
from jdred.plc.concealer import attenuate
from jdred.training.corpus import Prepared
from jdred.training.fargan import FORCED_SAMPLES, PAST_SAMPLES
from jdred.training.gap import GapSettings, GapTask, repair
from jdred.training.plc import predict
from jdred.training.run import restore_task
from jdred.vocoder.fargan import FARGAN, MEMORY_SAMPLES

ROWS, FRAMES = 6, 30
BEGIN = MEMORY_SAMPLES + FORCED_SAMPLES
"""Of the gap, where it is spoken."""


@pytest.fixture(scope="module")
def vocoder():
    return FARGAN(TINY_FARGAN, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def task(vocoder, tmp_path_factory):
    """On 3 sequences of noise."""
    folder = tmp_path_factory.mktemp("gap")
    write_prepared(folder, seed=0)
    voice = write_fargan(folder / "voice.npz", vocoder)
    settings = GapSettings(
        model=PredictorConfig(width=6, gru=5), vocoder=voice, batch=4, frames=FRAMES, rows=ROWS,
        packets=2, validation_sequences=2,
    )  # fmt: skip
    return GapTask(Prepared(folder), Prepared(folder), settings)


@pytest.fixture(scope="module")
def batch(task):
    return task.batch(np.random.default_rng(0)) | {"gap": np.array([1, 2, 1, 2])}


def test_the_end_is_lost_after_rows_to_prime_on(batch):
    assert batch["lost"][:, -ROWS:].all()
    assert not batch["lost"][:, -ROWS - FARGAN.prime_rows : -ROWS].any()
    assert batch["pcm"].shape == (4, PAST_SAMPLES + (FARGAN.prime_rows + ROWS) * FRAME_SAMPLES)


def test_the_gap_is_spoken_as_the_vocoder_would_in_a_call_and_what_follows_is_true(vocoder, batch, rng):
    predicted = jnp.asarray(rng.normal(0, 0.3, (4, ROWS, 20)), jnp.float32)
    truth, played = jax.jit(repair)(vocoder, predicted, batch)
    np.testing.assert_array_equal(played[:, :BEGIN], truth[:, :BEGIN])
    for number, packets in enumerate(batch["gap"]):
        end = BEGIN + PACKET_SAMPLES * packets
        np.testing.assert_array_equal(played[number, end:], truth[number, end:])
        assert np.abs(played[number, BEGIN:end] - truth[number, BEGIN:end]).max() > 0.01
    # In a call: the vocoder primed on what was heard up to the gap, the second half of its first row.
    known = PAST_SAMPLES + FARGAN.prime_rows * FRAME_SAMPLES
    rows = jnp.concatenate([batch["features"][:, -ROWS - 3 : -ROWS], attenuate(predicted, jnp.arange(1, 7), -15)], 1)
    pcm = batch["pcm"][:, :known] / INT16_SCALE
    _, half = jax.jit(FARGAN.prime)(vocoder, jnp.swapaxes(rows[:, :5], 0, 1), pcm, None)
    emphasised = half - PREEMPHASIS * np.concatenate([pcm[:, -1:], half[:, :-1]], axis=1)
    np.testing.assert_allclose(played[:, BEGIN : BEGIN + half.shape[1]], emphasised, atol=1e-5)


def test_what_is_heard_is_learned_from(task, batch):
    """The gradient of the voice alone reaches every weight, and a step against it is heard."""
    predictor = jax.jit(lambda: task.init(0))()
    voice = jax.jit(jax.value_and_grad(lambda p: task.loss(p, batch, None, None)[1]["voice"]))
    before, gradient = voice(predictor)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    after, _ = voice(jax.tree.map(lambda a, g: a - 1e-2 * g / size, predictor, gradient))
    assert after < before
    loss, figures = task.loss(predictor, batch, None, None)
    assert np.isclose(loss, figures["feature_loss"] + task.settings.voice_weight * figures["voice"], rtol=1e-5)
    # Nothing that comes after the loss is known to the predictor.
    later = batch["features"].copy()
    later[:, -ROWS:] = 9
    changed = predict(predictor, batch | {"features": later})
    np.testing.assert_array_equal(changed[:, -ROWS:], predict(predictor, batch)[:, -ROWS:])


def test_the_task_is_restored_from_its_configuration_and_validated(task, tmp_path):
    for name in ("train-0", "validation"):
        shutil.copytree(Path(task.settings.vocoder).parent, tmp_path / name)
    assert restore_task(task.config(), tmp_path).settings == task.settings
    figures = task.validate(jax.jit(lambda: task.init(0))())
    assert sorted(figures) == ["feature_loss", "loss", "voice"]
    assert all(map(np.isfinite, figures.values()))


def test_gaps_and_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="gaps of 1 .. 7 packets in 16 rows, found 8"):
        GapSettings(packets=8)
    with pytest.raises(ValueError, match="at least 19 frames, found 18"):
        GapSettings(frames=18)
