"""Training the RDO-VAE through a vocoder: the window that is spoken, its level, and gradients from sound to encoder."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_FARGAN, write_fargan
from flax import nnx

from jdred.config import FRAME_SAMPLES, RDOVAEConfig
from jdred.rdovae.loss import Runs, targets
from jdred.training.fargan import PAST_SAMPLES
from jdred.training.joint import JointSettings, JointTask, level_at, rows_of, window
from jdred.training.rdovae import random_cuts
from jdred.vocoder.fargan import FARGAN

FRAMES, CHUNKS = 48, 11
MODEL = RDOVAEConfig(latent_dim=4, state_dim=4, blocks=1, encoder_width=6, encoder_gru=6, encoder_conv=6,
                     decoder_width=6, decoder_gru=6, decoder_conv=6, state_hidden=6)  # fmt: skip


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    newest = random_cuts(rng, 2, CHUNKS)
    return {
        "features": rng.normal(size=(2, FRAMES, 20)).astype(np.float32),
        "pcm": (300 * rng.normal(size=(2, PAST_SAMPLES + FRAMES * FRAME_SAMPLES))).astype(np.int16),
        "newest": newest,
        "level": np.full_like(newest, 6),
    }


def test_rows_of_the_targets_are_the_features(batch):
    rows = rows_of(targets(jnp.swapaxes(batch["features"], 0, 1), CHUNKS)[:, 0])
    np.testing.assert_array_equal(rows, batch["features"][:, FRAMES - 4 * CHUNKS :])


@pytest.mark.parametrize("start", [4, 20, FRAMES - 10])
def test_a_window_is_primed_on_true_rows_and_speaks_the_told_ones(batch, start):
    features = batch["features"]
    got = window(batch, -features[:, FRAMES - 4 * CHUNKS :], jnp.asarray(start), 10)
    primed = FARGAN.prime_rows
    np.testing.assert_array_equal(got["features"][:, :primed], features[:, start : start + primed])
    np.testing.assert_array_equal(got["features"][:, primed:], -features[:, start + primed : start + 10])
    samples = slice(start * FRAME_SAMPLES, PAST_SAMPLES + (start + 10) * FRAME_SAMPLES)
    np.testing.assert_array_equal(got["pcm"], batch["pcm"][:, samples])


def test_the_level_is_that_of_the_chunk_that_holds_the_frame():
    level = np.arange(CHUNKS)[:, None, None] + np.zeros((CHUNKS, 2, 3), int)
    runs = Runs(level, jnp.asarray(level))
    assert [int(level_at(runs, FRAMES, f)[0]) for f in (FRAMES - 1, FRAMES - 4, FRAMES - 5, 4)] == [0, 0, 1, 10]


def test_gradients_run_from_what_is_heard_to_the_encoder(batch, tmp_path):
    voice = write_fargan(tmp_path / "voice.npz", FARGAN(TINY_FARGAN, rngs=nnx.Rngs(1)))
    settings = JointSettings(model=MODEL, frames=FRAMES, rows=6, vocoder=voice, voice_weight=1e3)
    task, deaf = (JointTask(None, None, s) for s in (settings, replace(settings, voice_weight=0.0)))
    model, key, step = task.init(0), jax.random.key(0), jnp.asarray(0)
    (loud, figures), gradient = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(model, batch, key, step)
    (plain, same), other = jax.jit(jax.value_and_grad(deaf.loss, has_aux=True))(model, batch, key, step)
    assert loud > plain
    assert np.isclose(figures["voice"], same["voice"])
    for heard, unheard in zip(
        jax.tree.leaves(gradient.encoder.latent), jax.tree.leaves(other.encoder.latent), strict=True
    ):
        assert np.isfinite(heard).all()
        assert np.abs(heard - unheard).max() > 1e-3 * np.abs(unheard).max()


def test_only_a_fargan_can_be_spoken_through():
    with pytest.raises(ValueError, match="expected a FARGAN, found LPCNetVoice in lpcnet"):
        _ = JointTask(None, None, JointSettings(vocoder="lpcnet")).vocoder
