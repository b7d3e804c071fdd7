"""LPCNet that learns through its own output: slopes, the replay of what was said, and gradients that reach all."""

from dataclasses import asdict, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_FARGAN, keep_within_16_indices, pulses, write_fargan, write_prepared
from flax import nnx

from jdred import weights
from jdred.config import FRAME_SAMPLES, FitConfig, LPCNetConfig, TrainConfig
from jdred.dsp import INT16_SCALE, mulaw
from jdred.dsp.filters import preemphasize
from jdred.streaming import batch_state
from jdred.training import freerun, slopes
from jdred.training.adversarial import Adversaries
from jdred.training.corpus import Prepared
from jdred.training.fargan import FORCED_SAMPLES, MEMORY_SAMPLES
from jdred.training.fargan import speak as fargan_speaks
from jdred.training.finish import FinishSettings, objective
from jdred.training.freerun import FIRST_ROW, KNOWN_SAMPLES, FreeRunSettings, FreeRunTask
from jdred.training.run import restore_task, train
from jdred.vocoder import VocoderInput, sampling
from jdred.vocoder.bunch import look_up
from jdred.vocoder.fargan import FARGAN, SUBFRAME_SAMPLES, SUBFRAMES
from jdred.vocoder.lpcnet import LPCNet, LPCNetVoice, fold

ROWS = 3
SMALL = LPCNetConfig(gru_a=16, gru_b=8, condition=8, embedding=4, pitch_embedding=4, bunch=4, long_term=True)
PLAIN = LPCNetConfig(gru_a=16, gru_b=8, condition=8, embedding=4, pitch_embedding=4)
QUIET_FLOOR = 0.1
JUDGE = partial(freerun.resemblance, QUIET_FLOOR)


# Slopes


def test_what_is_drawn_moves_as_the_mean_does(rng):
    """The slope at the indices that are drawn is, in the mean, that of the distribution's mean."""
    logits = jnp.asarray(rng.normal(0, 0.2, 256), jnp.float32)
    count, confinement = 100_000, 0.025
    uniforms = jnp.asarray(rng.random((count, 8)), jnp.float32)
    drawn = sampling.sample(jnp.broadcast_to(logits, (count, 256)), sampling.thresholds(uniforms, confinement))
    within = jnp.asarray(rng.random(count), jnp.float32)

    @jax.jit
    def moved(logits):
        value = slopes.drawn(drawn, logits[sampling.path(drawn)[0]], within, confinement)
        return value.mean(), value

    @jax.jit
    def mean(logits):
        confined = jnp.clip((jax.nn.sigmoid(logits) - confinement) / (1 - 2 * confinement), 1e-6, 1 - 1e-6)
        return sampling.probabilities(jax.scipy.special.logit(confined)) @ jnp.arange(256.0)

    got, value = jax.grad(moved, has_aux=True)(logits)
    np.testing.assert_array_equal(value, drawn)
    expected = jax.grad(mean)(logits)
    large = np.abs(expected) > 1
    assert large.sum() >= 7
    np.testing.assert_allclose(got[large], expected[large], rtol=0.1, atol=0.1)


def test_rounding_keeps_the_slope_of_the_law():
    x = jnp.asarray([-3000.0, -1.0, 0.3, 40.0, 20000.0])
    value, slope = jax.vmap(jax.value_and_grad(slopes.quantize))(x)
    np.testing.assert_array_equal(value, mulaw.quantize(x))
    np.testing.assert_allclose(slope, jax.vmap(jax.grad(mulaw.encode))(x), rtol=1e-5)


def test_look_ups_have_the_slope_between_their_neighbours(rng):
    tables = jnp.asarray(rng.normal(size=(3, 256, 4)), jnp.float32)
    values = jnp.asarray([[0.0, 7.0], [255.0, 9.0], [128.0, 100.0]])
    weight = 1e-5 * jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    np.testing.assert_array_equal(slopes.look_up_whole(tables, values), look_up(tables, values.astype(int)))
    slope = jax.jit(jax.grad(lambda v: (slopes.look_up_whole(tables, v) * weight).sum()))(values)
    np.testing.assert_allclose(slope[0, 0], (tables[0, 1] - tables[0, 0]) @ weight[0], rtol=1e-4)
    np.testing.assert_allclose(slope[1, 0], (tables[1, 255] - tables[1, 254]) @ weight[0], rtol=1e-4)
    np.testing.assert_allclose(slope[2, 1], (tables[2, 101] - tables[2, 99]) @ weight[1] / 2, rtol=1e-4)


def test_gradients_between_bunches_fade_and_have_bounds():
    carry = (jnp.zeros((2, 3)), jnp.zeros(5))
    _, back = jax.vjp(slopes.fading, carry)
    first, second = back((jnp.full((2, 3), 1e-4), jnp.asarray([1.0, -1.0, jnp.nan, jnp.inf, 0.0])))[0]
    np.testing.assert_allclose(first, slopes.MEMORY * 1e-4, rtol=1e-5)
    np.testing.assert_allclose(second, slopes.LARGEST / 2 * np.asarray([1, -1, 0, 1, 0]), rtol=1e-5)


# What was said, and how it could have been


def loud(config: LPCNetConfig) -> LPCNet:
    """A network in which every part matters, whose excitations stay within 16 indices of zero."""
    rng = np.random.default_rng(1)
    model = jax.jit(lambda: LPCNet(config, rngs=nnx.Rngs(0)))()
    model = jax.tree.map(lambda a: a + jnp.asarray(rng.normal(0, 0.2, a.shape), jnp.float32), model)
    keep_within_16_indices(model)
    return model


@pytest.fixture(scope="module")
def teacher():
    return FARGAN(TINY_FARGAN, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    return pulses(ROWS + FARGAN.lookahead_rows)


def rows_of(batch):
    return jnp.swapaxes(batch["features"], 0, 1)[FIRST_ROW : -FARGAN.lookahead_rows]


@jax.jit
def spoken_by(model, batch, key):
    voice, features = fold(model), rows_of(batch)
    _, condition = voice.frame.scan(batch_state(voice.frame.init_state(), features.shape[1:2]), features)
    return freerun.speak(voice, features, condition, freerun.known(batch), key)


@pytest.mark.parametrize("config", [SMALL, PLAIN], ids=["bunch of 4", "plain"])
def test_it_speaks_as_in_a_call_and_the_replay_says_the_same(config, batch):
    model, key = loud(config), jax.random.key(3)
    voice, features = fold(model, post_filter=0.0), rows_of(batch)
    spoken = spoken_by(model, batch, key)
    steps = SUBFRAMES // 2 + SUBFRAMES * ROWS - SUBFRAMES
    assert spoken.said.shape == (steps, 2, SUBFRAME_SAMPLES)
    # The same in a call, from the same uniform numbers: the second half of a row, then rows.
    uniforms = jnp.moveaxis(jax.random.uniform(key, (steps, 2, SUBFRAME_SAMPLES, 8)), 0, 1).reshape(2, -1, 8)
    padded = jnp.pad(uniforms, [(0, 0), (FRAME_SAMPLES // 2, 0), (0, 0)])
    prime, step = jax.jit(LPCNetVoice.prime), jax.jit(LPCNetVoice.step)
    pcm = batch["pcm"][:, FIRST_ROW * FRAME_SAMPLES :][:, :KNOWN_SAMPLES] / INT16_SCALE
    state, first = prime(voice, features[:3], pcm, padded[:, :FRAME_SAMPLES])
    heard = [first]
    for k in range(1, ROWS):
        uniform = padded[:, FRAME_SAMPLES * k :][:, :FRAME_SAMPLES]
        state, said = step(voice, state, VocoderInput(features[2 + k], uniform))
        heard.append(said)
    heard = jnp.concatenate(heard, axis=-1)
    emphasised = preemphasize(heard, pcm[:, -1])[0]
    assert np.abs(heard).max() < 1
    np.testing.assert_allclose(jnp.moveaxis(spoken.said, 0, 1).reshape(2, -1), emphasised, atol=1e-4)
    within = jnp.zeros(spoken.drawn.shape)
    said, _ = jax.jit(freerun.replay)(voice, spoken, within, freerun.nothing(voice, spoken))
    np.testing.assert_allclose(said, spoken.said, atol=1e-4)


def test_the_teacher_would_have_said_what_it_says(teacher, batch):
    """Where what is heard is its own speech, it would say the same."""
    _, own = jax.jit(fargan_speaks)(teacher, batch)
    free = own[:, MEMORY_SAMPLES + FORCED_SAMPLES :]
    said = jnp.moveaxis(free.reshape(2, -1, SUBFRAME_SAMPLES), 1, 0)
    aim = jax.jit(freerun.corrected)(teacher, batch, said)
    np.testing.assert_allclose(aim.better, said, atol=1e-5)
    assert aim.gain.shape == (len(said), 2, 1)
    other = jax.jit(freerun.corrected)(teacher, batch, said + 0.1)
    assert np.abs(other.better - aim.better)[1:].max() > 1e-3
    # The truth is that of the samples that are said.
    begin = (FIRST_ROW * FRAME_SAMPLES) + KNOWN_SAMPLES
    pcm = batch["pcm"][:, begin - 1 :][:, : aim.truth.shape[1] + 1] / INT16_SCALE
    np.testing.assert_allclose(aim.truth, preemphasize(pcm)[0][:, 1:], atol=1e-5)
    assert aim.truth.size == said.size


def test_too_little_of_a_band_is_too_much_error(rng):
    noise = jnp.asarray(0.01 * rng.normal(size=(2, 1600)), jnp.float32)
    said = jnp.moveaxis(noise.reshape(2, -1, SUBFRAME_SAMPLES), 1, 0)
    aim = freerun.Aim(said, jnp.ones((40, 2, 1)), noise)
    loss, same = freerun.resemblance(QUIET_FLOOR, aim, said)
    assert loss == 0
    assert all(value == 0 for value in same.values())
    _, softer = freerun.resemblance(QUIET_FLOOR, aim, said / 2)
    assert softer["bands"] == pytest.approx(2 * np.log10(2), rel=0.05)
    _, soft = freerun.resemblance(QUIET_FLOOR, jax.tree.map(lambda x: 1e-5 * x, aim), said / 2e5)
    assert soft["bands"] < 0.01


def test_the_gradient_is_that_of_the_replay(teacher, batch, monkeypatch):
    """Weights asked for all samples at once learn what they would by plain differentiation, without any bounds."""
    monkeypatch.setattr(slopes, "LARGEST", 1e9)
    monkeypatch.setattr(slopes, "look_up_whole", look_up)
    model, key = loud(SMALL), jax.random.key(0)
    speak_key, replay_key = jax.random.split(key)

    def plain(model):
        voice, features = fold(model), rows_of(batch)
        spoken = jax.lax.stop_gradient(spoken_by(model, batch, speak_key))
        _, condition = voice.frame.scan(batch_state(voice.frame.init_state(), (2,)), features)
        spoken = spoken._replace(told=freerun.spread(voice.told(features, condition), 4))
        aim = freerun.corrected(teacher, batch, spoken.said)
        within = jax.random.uniform(replay_key, spoken.drawn.shape)
        said, _ = freerun.replay(voice, spoken, within, freerun.nothing(voice, spoken))
        return JUDGE(aim, said)[0]

    expected, by_replay = jax.jit(jax.value_and_grad(plain))(model)
    loss, gradient = jax.jit(jax.value_and_grad(lambda m: freerun.correct(m, teacher, batch, key, JUDGE)[0]))(model)
    assert loss == pytest.approx(float(expected), rel=1e-4)
    own, by_replay = weights.flatten(gradient), weights.flatten(by_replay)
    for name, array in own.items():
        size = np.abs(by_replay[name]).max()
        assert size > 0, name
        np.testing.assert_allclose(array, by_replay[name], atol=0.02 * size, err_msg=name)


def test_steps_against_the_gradient_bring_it_nearer(teacher, batch):
    """In the mean over what chance decides."""
    model = loud(SMALL)
    keys = jax.random.split(jax.random.key(1), 16)

    @jax.jit
    @jax.value_and_grad
    def judged(model):
        loss = lambda key: freerun.correct(model, teacher, batch, key, JUDGE)[0]  # noqa: E731
        return jax.lax.map(loss, keys).mean()

    before, gradient = judged(model)
    for _ in range(5):
        rate = 0.3 / jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        model = jax.tree.map(lambda a, b, rate=rate: a - rate * b, model, gradient)
        after, gradient = judged(model)
    assert after < before - 0.005


# The task


def test_the_task_goes_on_from_trained_weights(teacher, tmp_path):
    for number, split in enumerate(("train-0", "validation")):
        write_prepared(tmp_path / split, seed=number)
    start = tmp_path / "start.npz"
    weights.write(start, weights.flatten(loud(SMALL)), {"kind": "lpcnet", "model": asdict(SMALL)}, half=False)
    settings = FreeRunSettings(
        teacher=write_fargan(tmp_path / "teacher.npz", teacher), batch=2, rows=ROWS, validation_batches=1
    )
    config = TrainConfig(
        data=tmp_path, out=tmp_path / "run", start_from=str(start), fit=FitConfig(total_steps=1, validate_every=1)
    )
    figures = train("freerun", config, settings)
    assert sorted(figures) == ["bands", "loss", "samples", "spectral"]
    arrays, stored = weights.read(tmp_path / "run" / "best.npz")
    assert (stored["kind"], stored["task"], stored["start_from"]) == ("lpcnet", "freerun", str(start))
    before = weights.read(start)[0]
    assert all(np.abs(arrays[name] - before[name]).max() > 0 for name in arrays)
    task = restore_task(stored, tmp_path)
    assert isinstance(task, FreeRunTask)
    assert task.settings.model == SMALL
    assert isinstance(task.train, Prepared)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="at least 3 rows, found 2"):
        FreeRunSettings(rows=2)
    with pytest.raises(ValueError, match="at least 7 rows, found 6"):
        FinishSettings(rows=6)
    with pytest.raises(ValueError, match="expected a teacher"):
        FreeRunSettings(teacher="")
    for settings in (FreeRunSettings, FinishSettings):
        with pytest.raises(ValueError, match="without a linear prediction of its own"):
            settings(model=replace(SMALL, end_to_end=True))


def test_against_discriminators_each_side_learns_its_own(teacher):
    batch = pulses(7 + FARGAN.lookahead_rows)
    settings = FinishSettings(model=SMALL, discriminator_width=4)
    sides = jax.jit(lambda: Adversaries(loud(SMALL), 4, rngs=nnx.Rngs(0)))()

    @jax.jit
    def gradient(settings_weight):
        def loss(sides):
            weights_of = replace(settings, resemblance=settings_weight)
            return objective(weights_of, sides, teacher, batch, jax.random.key(0))

        return jax.value_and_grad(loss, has_aux=True)(sides)

    (_, figures), both = gradient(5.0)
    assert sorted(figures) == ["adversarial", "bands", "discriminator", "matching", "samples", "spectral"]
    (_, _), other = gradient(50.0)
    # The discriminators alone reach every weight of the vocoder.
    for name, array in weights.flatten(gradient(0.0)[1].vocoder).items():
        assert np.abs(array).max() > 0, name
    for name, array in weights.flatten(both).items():
        assert np.abs(array).max() > 0, name
    # Discriminators do not ask how far it strays from the teacher; the vocoder does.
    jax.tree.map(np.testing.assert_array_equal, both.discriminators, other.discriminators)
    assert np.abs(other.vocoder.gru_a.recurrent[...] - both.vocoder.gru_a.recurrent[...]).max() > 1e-6
