"""The adversarial stage of FARGAN: what discriminators see, whose gradient is whose, and what a run leaves."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_FARGAN
from flax import nnx

from jdred import weights
from jdred.config import FRAME_SAMPLES, FitConfig
from jdred.models import load_vocoder
from jdred.training import checkpoint, export, loop
from jdred.training.adversarial import (
    TRUE_SAMPLES,
    AdversarialSettings,
    AdversarialTask,
    Discriminator,
    discriminate,
    objective,
    patches,
)
from jdred.training.corpus import Prepared
from jdred.training.fargan import speak
from jdred.training.interpolation import interpolate
from jdred.training.run import evaluate, restore_task
from jdred.vocoder.fargan import FARGAN


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
def task(data):
    settings = AdversarialSettings(
        model=TINY_FARGAN,
        batch=2,
        rows=8,
        discriminator_width=8,
        discriminator_warmup=3,
        validation_batches=1,
        warmup_steps=1,
    )
    return AdversarialTask(Prepared(data / "train-0"), Prepared(data / "validation"), settings)


def test_a_patch_is_five_frames_of_32_bins_half_of_them_the_next_ones_too():
    spectrum = jnp.arange(7 * 65.0).reshape(1, 7, 65)
    got = patches(spectrum)
    assert got.shape == (1, 3, 3, 160)
    np.testing.assert_array_equal(got[0, 2, 1].reshape(5, 32), spectrum[0, 2:7, 17:49])


def test_each_side_has_the_gradient_of_its_own_loss(task):
    sides, batch = task.init(0), task.batch(np.random.default_rng(0))
    settings = AdversarialSettings(model=TINY_FARGAN, spectral=0.0, matching=0.5)

    def heard(sides):
        truth, said = (x[:, TRUE_SAMPLES:] for x in speak(sides.vocoder, batch))
        return discriminate(sides.discriminators, truth, said)

    @jax.jit
    def gradients(sides):
        def vocoder(sides):
            return heard(sides).adversarial + 0.5 * heard(sides).matching

        both = jax.value_and_grad(lambda sides: objective(settings, sides, batch), has_aux=True)(sides)
        return *both, jax.grad(vocoder)(sides), jax.grad(lambda sides: heard(sides).discriminator)(sides)

    (total, figures), both, vocoder, discriminators = gradients(sides)
    aims = figures["adversarial"] + 0.5 * figures["matching"] + figures["discriminator"]
    np.testing.assert_allclose(total, aims, rtol=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(close, both.vocoder, vocoder.vocoder)
    jax.tree.map(close, both.discriminators, discriminators.discriminators)
    assert all(np.abs(a).max() > 0 for a in jax.tree.leaves(both.discriminators))
    assert any(np.abs(a).max() > 1e-4 for a in jax.tree.leaves(both.vocoder))


def test_discriminators_learn_to_tell_noise_from_pulses():
    rng = np.random.default_rng(0)
    pulses = np.zeros((4, 2000), np.float32)
    pulses[:, ::80] = 0.3
    noise = rng.normal(0, 0.3 / 80**0.5, pulses.shape).astype(np.float32)
    discriminators = nnx.List([Discriminator(256, 16, rngs=nnx.Rngs(0))])

    @jax.jit
    def step(discriminators):
        error, gradient = jax.value_and_grad(lambda each: discriminate(each, pulses, noise).discriminator)(
            discriminators
        )
        return jax.tree.map(lambda a, b: a - 0.02 * b, discriminators, gradient), error

    for _ in range(60):
        discriminators, error = step(discriminators)
    assert error < 0.1
    same = discriminate(discriminators, pulses, pulses)
    assert same.matching == 0
    assert same.adversarial < discriminate(discriminators, pulses, noise).adversarial


@pytest.fixture(scope="module")
def run(data, task, tmp_path_factory):
    """Five steps from given weights, the first three of the discriminators alone: folder and last figures."""
    folder = tmp_path_factory.mktemp("run")
    voice = weights.flatten(FARGAN(TINY_FARGAN, rngs=nnx.Rngs(1)))
    fit = FitConfig(total_steps=3, log_every=1, validate_every=1, checkpoint_every=1, ema=0.0)
    loop.fit(task, folder, fit, initial=voice, start_from="voice")
    first = weights.read(folder / "best.npz"), restored(folder, task)
    return folder, loop.fit(task, folder, replace(fit, total_steps=5)), voice, first


def restored(folder, task):
    with closing(checkpoint.open_folder(folder / "checkpoints")) as saver:
        return checkpoint.load(saver, loop.abstract_state(task))[0]["arrays"]


def test_discriminators_begin_alone_and_the_newest_vocoder_is_kept(task, run):
    folder, _, voice, ((arrays, config), state) = run
    assert config["step"] == 3
    assert sorted(arrays) == sorted(voice)
    for name, array in arrays.items():
        np.testing.assert_allclose(array, voice[name], atol=1e-6)
    fresh = weights.flatten(task.init(0))
    assert all(np.abs(state[name] - fresh[name]).max() > 0 for name in fresh if name.startswith("discriminators/"))
    later, config = weights.read(folder / "best.npz")
    assert config["step"] == 5
    assert config["start_from"] == "voice"
    assert any(np.abs(later[name] - voice[name]).max() > 1e-5 for name in voice)


def test_a_run_is_restored_validated_and_shipped(data, task, run, tmp_path):
    folder, figures, *_ = run
    assert restore_task(weights.read(folder / "best.npz")[1], data).settings == task.settings
    assert evaluate(folder, data) == {"step": 5, **figures}
    with pytest.raises(ValueError, match="expected an origin that tells of {'start_from': 'voice'}"):
        export.export(folder, "fargan", "mine", folder=tmp_path)
    path = export.export(folder, "fargan", "mine", folder=tmp_path, origin="From a voice.")
    card = path.with_suffix(".md").read_text()
    assert "From a voice. 5 steps" in card
    assert "the newest" in card
    assert "train_adversarial.py" in card
    before, after = export.compare_validation(path, folder, "fargan", data)["spectral"]
    assert after == pytest.approx(before, rel=0.01)
    assert load_vocoder(str(path)).config == TINY_FARGAN


def test_half_of_the_way_is_shipped_with_a_card_that_says_so(run, tmp_path):
    folder, _, voice, _ = run
    config, start = json.loads((folder / "best.json").read_text()), tmp_path / "start.npz"
    weights.write(start, voice, {"kind": "fargan", "model": config["model"]}, half=False)
    (tmp_path / "run").mkdir()
    shutil.copy(folder / "train.csv", tmp_path / "run")
    arrived = {name: array + 0.1 for name, array in voice.items()}
    weights.write(tmp_path / "run" / "best.npz", arrived, config | {"start_from": str(start)}, half=False)
    interpolate(tmp_path / "run", tmp_path / "half", 0.5)
    path = export.export(tmp_path / "half", "fargan", "mine", folder=tmp_path, origin="From a voice.")
    card = path.with_suffix(".md").read_text()
    assert "`best.npz`, 0.5 parts, with 0.5 parts of what it started from" in card
    assert "## Validation" not in card
    for name, array in weights.read(path)[0].items():
        np.testing.assert_allclose(array, voice[name] + 0.05, atol=2e-3)
