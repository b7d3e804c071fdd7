"""The adversarial stage of FARGAN: what critics see, whose gradient is whose, and what a run leaves."""

from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdred import weights
from jdred.config import FRAME_SAMPLES, FARGANConfig, FitConfig
from jdred.models import load_vocoder
from jdred.training import loop
from jdred.training.adversarial import AdversarialSettings, AdversarialTask, Critic, judge, objective, patches
from jdred.training.corpus import Prepared
from jdred.training.fargan import PAST_SAMPLES
from jdred.training.run import evaluate, restore_task
from jdred.vocoder.fargan import FARGAN

VOICE = FARGANConfig(
    pitch_embedding=3, condition_dense=6, condition_conv=6, condition=5, first=8, grus=(6, 5, 4), dense=6
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("train-0", "validation"):
        (folder / name).mkdir()
        pcm = 200 * rng.normal(size=(3, 80 * FRAME_SAMPLES))
        pcm[:, ::70] += 3000
        np.save(folder / name / "pcm.npy", pcm.astype(np.int16))
        np.save(folder / name / "features.npy", rng.normal(0, 0.3, (3, 80, 20)).astype(np.float32))
        np.save(folder / name / "burg.npy", np.zeros((3, 80, 36), np.float32))
        (folder / name / "complete").touch()
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("voice") / "voice.npz"
    voice = FARGAN(VOICE, rngs=nnx.Rngs(1))
    weights.write(path, weights.flatten(voice), {"kind": "fargan", "model": asdict(VOICE)}, half=False)
    return AdversarialSettings(
        vocoder=str(path), batch=2, rows=8, critics_width=8, critics_alone=3, validation_batches=1, warmup_steps=1
    )


@pytest.fixture(scope="module")
def task(data, settings):
    return AdversarialTask(Prepared(data / "train-0"), Prepared(data / "validation"), settings)


def test_a_patch_is_five_frames_of_32_bins_half_of_them_the_next_ones_too():
    spectrum = jnp.arange(7 * 65.0).reshape(1, 7, 65)
    got = patches(spectrum)
    assert got.shape == (1, 3, 3, 160)
    np.testing.assert_array_equal(got[0, 2, 1].reshape(5, 32), spectrum[0, 2:7, 17:49])


def test_each_side_has_the_gradient_of_its_own_aim(task):
    duel, batch = task.init(0), task.batch(np.random.default_rng(0))

    @jax.jit
    def gradients(duel, spectral):
        def loss(duel):
            return objective(AdversarialSettings(spectral=spectral, matching=0.0), duel, batch)

        return jax.value_and_grad(loss, has_aux=True)(duel)

    (total, figures), plain = gradients(duel, 0.0)
    np.testing.assert_allclose(total, figures["doubt"] + figures["critics"], rtol=1e-5)
    (_, _), weighty = gradients(duel, 5.0)
    for calm, other in zip(jax.tree.leaves(plain.critics), jax.tree.leaves(weighty.critics), strict=True):
        np.testing.assert_array_equal(calm, other)
    sizes = [np.abs(a).max() for a in jax.tree.leaves(plain.vocoder)]
    apart = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (plain.vocoder, weighty.vocoder)), strict=True)]
    assert max(sizes) > 0
    assert np.isfinite(sizes).all()
    assert max(apart) > 0


def test_the_vocoder_goes_where_critics_score_higher(task):
    """A step along the vocoder's gradient of doubt lowers it; one of the critics lowers their error."""
    duel, batch = task.init(0), task.batch(np.random.default_rng(1))

    @jax.jit
    def loss(duel):
        return objective(AdversarialSettings(spectral=0.0, matching=0.0), duel, batch)

    def moved(side, gradient):
        size = 1e-3 / np.sqrt(sum(float((a**2).sum()) for a in jax.tree.leaves(gradient)))
        return jax.tree.map(lambda a, b: a - size * b, side, gradient)

    figures, gradient = loss(duel)[1], jax.jit(jax.grad(lambda duel: loss(duel)[0]))(duel)
    wiser, bolder = task.init(0), task.init(0)
    wiser.critics = moved(duel.critics, gradient.critics)
    bolder.vocoder = moved(duel.vocoder, gradient.vocoder)
    assert loss(wiser)[1]["critics"] < figures["critics"]
    assert loss(bolder)[1]["doubt"] < figures["doubt"]


def test_critics_learn_to_tell_noise_from_pulses():
    rng = np.random.default_rng(0)
    pulses = np.zeros((4, 2000), np.float32)
    pulses[:, ::80] = 0.3
    noise = rng.normal(0, 0.3 / 80**0.5, pulses.shape).astype(np.float32)
    critics = nnx.List([Critic(256, 16, rngs=nnx.Rngs(0))])

    @jax.jit
    def step(critics):
        error, gradient = jax.value_and_grad(lambda critics: judge(critics, pulses, noise).critics)(critics)
        return jax.tree.map(lambda a, b: a - 0.02 * b, critics, gradient), error

    for _ in range(60):
        critics, error = step(critics)
    assert error < 0.1
    same = judge(critics, pulses, pulses)
    assert same.matching == 0
    assert same.doubt < judge(critics, pulses, noise).doubt


def test_a_run_leaves_the_newest_vocoder_alone_and_first_trains_critics_only(data, task, settings, tmp_path):
    begin = weights.flatten(load_vocoder(settings.vocoder))
    fit = FitConfig(total_steps=3, log_every=1, validate_every=1, checkpoint_every=1, ema=0.0)
    loop.fit(task, tmp_path, fit)
    arrays, config = weights.read(tmp_path / "best.npz")
    assert config["step"] == 3
    assert sorted(arrays) == sorted(begin)
    for name, array in arrays.items():
        np.testing.assert_allclose(array, begin[name], atol=1e-6)
    figures = loop.fit(task, tmp_path, FitConfig(total_steps=5, log_every=1, validate_every=5, ema=0.0))
    later = weights.flatten(load_vocoder(str(tmp_path / "best.npz")))
    assert any(np.abs(later[name] - begin[name]).max() > 1e-5 for name in begin)
    assert restore_task(config, data).settings == settings_with_model(settings)
    assert evaluate(tmp_path, data) == {"step": 5, **figures}


def settings_with_model(settings: AdversarialSettings) -> AdversarialSettings:
    """The settings as a checkpoint has them: with the sizes of the vocoder."""
    return AdversarialSettings(**{**vars(settings), "model": VOICE})


def test_crops_hold_what_priming_needs(task):
    batch = task.batch(np.random.default_rng(0))
    frames = task.settings.rows + FARGAN.prime_rows
    assert batch["features"].shape == (2, frames, 20)
    assert batch["pcm"].shape == (2, PAST_SAMPLES + frames * FRAME_SAMPLES)
