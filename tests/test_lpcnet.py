"""LPCNet: the tree, the vocoder against its parallel twin, and training."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import keep_within_16_indices
from flax import nnx

from jdred import streaming
from jdred.config import FRAME_SAMPLES, LPC_ORDER, PREEMPHASIS, LPCNetConfig, TrainConfig
from jdred.dsp import INT16_SCALE, mulaw
from jdred.dsp.lpc import lpc_from_cepstrum
from jdred.dsp.pitch import period_from_feature
from jdred.layers import GRU, gru_gates, gru_recurrence
from jdred.training.lpcnet import (
    TABLES,
    Heard,
    LPCNetSettings,
    LPCNetTask,
    Speech,
    align,
    damage,
    draw_noise,
    noisy_indices,
    observe,
)
from jdred.training.run import train
from jdred.vocoder import VocoderInput, sampling
from jdred.vocoder.frame_network import CONTEXT_ROWS, FrameNetwork
from jdred.vocoder.lpcnet import LPCNet, LPCNetVoice, comb, fold

KNOWN = LPCNetVoice.prime_rows * FRAME_SAMPLES + FRAME_SAMPLES // 2
SMALL = LPCNetConfig(gru_a=24, gru_b=8, condition=16, embedding=8, pitch_embedding=4)


@jax.jit
def fresh():
    return LPCNet(SMALL, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def model():
    """A small network, biased and louder than a fresh one, so that every part of it matters."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: a + jnp.asarray(rng.normal(0, 0.2, a.shape), jnp.float32), fresh())


@pytest.fixture(scope="module")
def voice(model):
    return fold(model, post_filter=0.0)


@pytest.fixture(scope="module")
def calm(model):
    """A voice whose excitations stay within 16 indices of zero, so that what it says is never clipped."""
    calm = jax.tree.map(lambda a: a, model)
    keep_within_16_indices(calm)
    return fold(calm, post_filter=0.0)


@pytest.fixture(scope="module")
def prime():
    return jax.jit(LPCNetVoice.prime)


@pytest.fixture(scope="module")
def step():
    return jax.jit(LPCNetVoice.step)


@pytest.fixture(scope="module")
def rows():
    """Four feature rows with uniforms, and PCM to prime on."""
    rng = np.random.default_rng(3)
    features = rng.normal(0, 0.3, (4, 20)).astype(np.float32)
    features[:, 0] += 2
    pcm = (0.1 * np.sin(0.2 * np.arange(KNOWN)) + 0.02 * rng.normal(size=KNOWN)).astype(np.float32)
    uniforms = rng.random((4, FRAME_SAMPLES, 8)).astype(np.float32)
    return VocoderInput(features, uniforms), pcm


def row(rows: VocoderInput, k: int) -> VocoderInput:
    return jax.tree.map(lambda a: a[k], rows)


# The tree

probabilities = jax.jit(sampling.probabilities)


def test_tree_probabilities_are_those_of_the_paths(rng):
    logits = jnp.asarray(rng.normal(0, 2, (3, 256)), jnp.float32)
    p = probabilities(logits)
    every = np.broadcast_to(np.arange(256), (3, 256))
    paths = jnp.exp(jax.jit(jax.vmap(sampling.log_likelihood, in_axes=(None, 1), out_axes=1))(logits, every))
    np.testing.assert_allclose(p.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(p, paths, rtol=1e-4, atol=1e-9)


def test_tree_takes_most_significant_bit_first():
    logits = jnp.zeros(256).at[1].set(30.0)
    assert float(probabilities(logits)[128:].sum()) == pytest.approx(1.0)
    nodes, bits = sampling.path(jnp.asarray(0b10110001))
    assert bits.tolist() == [1, 0, 1, 1, 0, 0, 0, 1]
    assert nodes.tolist() == [1, 0b11, 0b110, 0b1101, 0b11011, 0b110110, 0b1101100, 0b11011000]


def test_samples_follow_the_distribution(rng):
    logits = jnp.asarray(rng.normal(0, 1.5, 256), jnp.float32)
    count = 100_000
    uniforms = jnp.asarray(rng.random((count, 8)), jnp.float32)
    drawn = sampling.sample(jnp.broadcast_to(logits, (count, 256)), sampling.thresholds(uniforms, confinement=0.0))
    p = np.asarray(probabilities(logits), np.float64)
    seen = np.bincount(drawn, minlength=256)
    likely = p > 1e-4
    chi2 = ((seen - count * p) ** 2 / (count * p))[likely].sum()
    assert chi2 < likely.sum() + 5 * np.sqrt(2 * likely.sum())


def test_confined_sampling_never_takes_an_unlikely_branch(rng):
    logits = jnp.zeros(256).at[1].set(jax.scipy.special.logit(0.02)).at[2].set(jax.scipy.special.logit(0.03))
    uniforms = jnp.asarray(rng.random((20_000, 8)), jnp.float32)
    drawn = sampling.sample(jnp.broadcast_to(logits, (20_000, 256)), sampling.thresholds(uniforms))
    assert int(drawn.max()) < 128
    # 0.03 lies 0.005 above the floor of 0.025, of the 0.95 that are left.
    assert float(jnp.mean(drawn >= 64)) == pytest.approx(0.005 / 0.95, abs=0.003)


def test_uniforms_of_one_half_take_the_likelier_branch(rng):
    logits = jnp.asarray(rng.normal(0, 1, 256), jnp.float32)
    for temperature in (0.5, 1.0):
        drawn = int(sampling.sample(logits, sampling.thresholds(jnp.full(8, 0.5), temperature=temperature)))
        nodes, bits = sampling.path(jnp.asarray(drawn))
        assert ((logits[nodes] > 0) == (bits == 1)).all()


# The post-filter


def test_the_comb_keeps_harmonics_and_softens_what_lies_between(rng):
    period, rows = 64, 5
    features = jnp.zeros((rows, 20)).at[:, 18].set(period_feature(period)).at[:, 19].set(0.5)
    time = np.arange(rows * FRAME_SAMPLES + 256)
    harmonics = np.cos(2 * np.pi * time / period) + np.cos(2 * np.pi * 5 * time / period)
    between = np.cos(2 * np.pi * 2.5 * time / period)
    filtered = jax.jit(jax.vmap(comb, in_axes=(0, 0, 0, None)), static_argnums=3)

    def by_rows(signal):
        blocks = np.stack([signal[FRAME_SAMPLES * k :][: 256 + FRAME_SAMPLES] for k in range(rows)]).astype(np.float32)
        return np.asarray(filtered(blocks[:, :256], blocks[:, 256:], features, 0.5)).reshape(-1)

    np.testing.assert_allclose(by_rows(harmonics), harmonics[256:], atol=1e-4)
    np.testing.assert_allclose(by_rows(between), between[256:] / 3, atol=1e-4)  # (1 - .5) / (1 + .5)
    unvoiced = comb(jnp.zeros(256), jnp.ones(4), features[0].at[19].set(-0.5), 0.5)
    np.testing.assert_array_equal(unvoiced, jnp.ones(4))


def period_feature(period: int) -> float:
    """The feature of a pitch period."""
    candidates = jnp.linspace(-2, 4, 6001)
    return candidates[jnp.argmax(period_from_feature(candidates) == period)] + 1e-3


# The recurrence


def plain_recurrence(inputs, recurrent, bias, h):
    def body(h, x):
        h = gru_gates(x, h @ recurrent + bias, h)
        return h, h

    return jax.lax.scan(body, h, inputs)[1]


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_recurrence_gradient_equals_autodiff(batch):
    width, rng = 5, np.random.default_rng(0)
    shapes = ((7, *batch, 3 * width), (width, 3 * width), (3 * width,), (*batch, width), (7, *batch, width))
    *args, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)

    def run(recurrence):
        return jax.jit(jax.value_and_grad(lambda *a: (recurrence(*a) * weight).sum(), argnums=(0, 1, 2, 3)))(*args)

    expected, got = run(plain_recurrence), run(gru_recurrence)
    jax.tree.map(lambda e, g: np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-5), expected, got)


def test_gru_scan_equals_steps_also_with_reset():
    gru = jax.jit(lambda: GRU(3, 4, rngs=nnx.Rngs(0)))()
    rng = np.random.default_rng(0)
    xs, h = rng.normal(size=(6, 2, 3)).astype(np.float32), rng.normal(size=(2, 4)).astype(np.float32)

    @jax.jit
    def ways(gru, h, xs):
        never = (jnp.zeros((6, 2), bool), jnp.zeros((6, 2, 4)))
        return jax.lax.scan(gru.step, h, xs), gru.scan(h, xs), gru.scan(h, xs, never), gru.scan(h, xs[:0])

    (last, expected), *others, (unmoved, empty) = ways(gru, h, xs)
    for final, states in others:
        np.testing.assert_allclose(states, expected, atol=1e-6)
        np.testing.assert_allclose(final, last, atol=1e-6)
    np.testing.assert_array_equal(unmoved, h)
    assert empty.shape == (0, 2, 4)


# The vocoder


def test_frame_network_scans_as_it_steps(model):
    @jax.jit
    def ways(network: FrameNetwork, features):
        start, late = network.init_state(), jnp.arange(7) - 1
        return (
            jax.lax.scan(network.step, start, features),
            network.scan(start, features),
            network.scan(start, features[1:])[1],
            network.scan(start, features, late)[1],
        )

    features = np.random.default_rng(0).normal(size=(7, 20)).astype(np.float32)
    (stepped_state, stepped), (scanned_state, scanned), cold, reset = ways(model.frame, features)
    np.testing.assert_allclose(scanned, stepped, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), scanned_state, stepped_state)
    # A reset before row 1 makes it a network that starts there.
    np.testing.assert_allclose(reset[1:], cold, atol=1e-5)
    # The context is exactly CONTEXT_ROWS: row 0 matters to row 4 and no longer to row 5.
    assert np.abs(cold[CONTEXT_ROWS - 1] - scanned[CONTEXT_ROWS]).max() > 1e-4
    np.testing.assert_allclose(cold[CONTEXT_ROWS:], scanned[1 + CONTEXT_ROWS :], atol=1e-5)


def test_tables_are_the_embedding_times_its_kernels(model):
    indices = jnp.asarray([3, 128, 250])
    rows = np.asarray(model.embedding[...])[[3, 128, 250]]
    expected = np.einsum("ie,ieg->g", rows, np.asarray(model.embedding_kernels[...]))
    np.testing.assert_allclose(fold(model).tables.of_bunch(indices), expected, rtol=1e-4, atol=1e-5)


def heard_by_hand(features, pcm):
    """What teacher forcing on PCM feeds the network at each sample: three indices, and the linear prediction."""
    a = np.asarray(jax.jit(lpc_from_cepstrum)(features[:, :18]), np.float64)
    scaled = INT16_SCALE * pcm.astype(np.float64)
    signal = scaled - PREEMPHASIS * np.concatenate([[0], scaled[:-1]])
    padded = np.concatenate([np.zeros(LPC_ORDER), signal])
    pasts = np.stack([padded[n : n + LPC_ORDER][::-1] for n in range(len(signal))])
    predictions = -(np.repeat(a, FRAME_SAMPLES, axis=0)[: len(pasts)] * pasts).sum(axis=1)
    last, prediction, excitation = np.asarray(
        mulaw.quantize(np.float32([pasts[:, 0], predictions, signal - predictions]))
    )
    excitation = np.concatenate([[mulaw.ZERO], excitation[:-1]])
    return np.stack([last, prediction, excitation]), predictions


def assert_same_speech(got, wanted):
    """States and sound, up to rounding; signals are in int16 units."""
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3), got[0], wanted[0])
    assert got[0].excitation == wanted[0].excitation
    np.testing.assert_allclose(got[1], wanted[1], atol=1e-5)


def test_priming_on_what_was_said_goes_on_as_if_it_had_never_ceased(calm, prime, step, rows):
    """The parallel twin hears what the steps said, alone and in a batch."""
    xs, _ = rows
    state, said = calm.init_state(), []
    for k in range(3):
        state, sound = step(calm, state, row(xs, k))
        said.append(sound)
    said = np.concatenate(said)
    assert 0.01 < np.abs(said).max() < 1
    args = xs.features[:3], said[:KNOWN], xs.uniforms[2]
    primed, rest = prime(calm, *args)
    assert_same_speech((primed, rest), (state, said[KNOWN:]))
    assert_same_speech(step(calm, primed, row(xs, 3)), step(calm, state, row(xs, 3)))
    # A second stream of the same rows, that was never loud.
    features, pcm, uniforms = args[0], np.stack([args[1], 0 * args[1]]), np.stack([args[2]] * 2)
    both = prime(calm, np.stack([features] * 2, axis=1), pcm, uniforms)
    assert_same_speech(jax.tree.map(lambda a: a[0], both), (primed, rest))
    assert np.abs(both[1][1] - both[1][0]).max() > 1e-3


def test_priming_on_real_sound_is_teacher_forcing(model, voice, prime, rows):
    xs, pcm = rows
    features = xs.features[:3]
    # One sample more than is known: what is fed to the first that is free depends on known ones only.
    indices, predictions = heard_by_hand(features, np.append(pcm, np.float32(0)))

    @jax.jit
    def twin(model, features, indices):
        _, condition = model.frame.scan(model.frame.init_state(), features)
        return model.scan(condition, indices)

    h = twin(model, features, indices)
    drawn = sampling.sample(model.output(h[KNOWN]), sampling.thresholds(xs.uniforms[2, FRAME_SAMPLES // 2]))
    expected = predictions[KNOWN] + mulaw.decode(drawn) + PREEMPHASIS * INT16_SCALE * pcm[-1]
    _, said = prime(voice, features, pcm, xs.uniforms[2])
    assert said.shape == (FRAME_SAMPLES // 2,)
    assert float(said[0]) * INT16_SCALE == pytest.approx(float(np.clip(expected, -32768, 32767)), abs=1.0)
    # The first half of the last row's uniforms is of no account.
    again = prime(voice, features, pcm, np.where(np.arange(FRAME_SAMPLES)[:, None] < 80, 0.5, xs.uniforms[2]))[1]
    np.testing.assert_array_equal(again, said)


def test_speaking_bound_vmapped_or_batched(voice, step, rows):
    xs = jax.tree.map(lambda a: a[:3], rows[0])
    _, alone = step(voice, voice.init_state(), row(xs, 0))
    assert np.isfinite(alone).all()
    # One row each to three streams at once: as many, batched by vmap and by leading axes.
    batch = streaming.batch_state(voice.init_state(), (3,))
    mapped_state, mapped = jax.jit(jax.vmap(voice.step))(batch, xs)
    batched_state, batched = step(voice, batch, xs)
    np.testing.assert_allclose(mapped, batched, atol=1e-4)
    np.testing.assert_allclose(mapped[0], alone, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), mapped_state, batch)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), batched_state, batch)
    # The same numbers give the same sound, others give another.
    again = step(voice, voice.init_state(), row(xs, 0))[1]
    np.testing.assert_array_equal(again, alone)
    other = step(voice, voice.init_state(), VocoderInput(xs.features[0], xs.uniforms[1]))[1]
    assert not np.array_equal(other, alone)


def test_a_network_that_says_nothing_starts_without_a_click(model, step):
    nodes, bits = sampling.path(jnp.asarray(mulaw.ZERO))
    units = jnp.zeros((2, 256)).at[:, nodes].set(jnp.where(bits == 1, 9.0, -9.0)).reshape(-1)
    quiet = jax.tree.map(lambda a: a, model)
    quiet.output.units.kernel[...] = jnp.zeros_like(quiet.output.units.kernel[...])
    quiet.output.units.bias[...] = units
    quiet.output.factors[...] = 9 * jnp.ones((2, 256))
    voice = fold(quiet)
    assert voice.init_state().excitation.tolist() == [mulaw.ZERO]
    x = VocoderInput(jnp.zeros(20), jax.random.uniform(jax.random.key(0), (FRAME_SAMPLES, 8)))
    state, said = step(voice, voice.init_state(), x)
    np.testing.assert_array_equal(said, 0.0)
    assert state.excitation.tolist() == [mulaw.ZERO]


# Training


class Noise:
    """A corpus of resonant noise with the cepstrum of a slope."""

    def speech(self, rng, batch, frames, past):
        pcm = np.cumsum(rng.normal(0, 200, (batch, frames * FRAME_SAMPLES)), axis=1)
        features = rng.normal(0, 0.2, (batch, frames, 20)) + 3 * (np.arange(20) < 2)
        return {"pcm": np.clip(pcm, -30_000, 30_000).astype(np.int16), "features": features.astype(np.float32)}


@pytest.fixture(scope="module")
def task():
    return LPCNetTask(Noise(), Noise(), LPCNetSettings(model=SMALL, batch=4, rows=2, validation_batches=2))


def test_rows_speak_half_a_frame_early():
    pcm = np.zeros((1, (CONTEXT_ROWS + 2) * FRAME_SAMPLES), np.int16)
    first = CONTEXT_ROWS * FRAME_SAMPLES - 80
    pcm[0, first - 1], pcm[0, first], pcm[0, first + 319] = 100, 1000, 500
    spoken, past = align(pcm)
    assert spoken.shape == (320, 1)
    assert past.shape == (LPC_ORDER, 1)
    assert float(past[-1, 0]) == 100
    assert float(spoken[0, 0]) == 1000 - PREEMPHASIS * 100
    assert float(spoken[-1, 0]) == 500


def heard_of(spoken, past, a, noise):
    return observe(Speech(spoken, past, damage(spoken, past, a, noise)), a)


def test_damage_is_the_closed_loop_written_out(rng):
    samples, batch = 2 * FRAME_SAMPLES, 2
    spoken, past = rng.normal(0, 2000, (samples, batch)), rng.normal(0, 2000, (LPC_ORDER, batch))
    cepstrum = rng.normal(0, 0.3, (2, batch, 18)) + 4 * (np.arange(18) < 1)
    a = np.asarray(jax.jit(lpc_from_cepstrum)(np.float32(cepstrum)))
    noise = np.round(rng.laplace(0, 2, (samples, batch)))
    heard = jax.jit(heard_of)(*(jnp.asarray(x, jnp.float32) for x in (spoken, past, a, noise)))
    # Written out from the indices that were found, so that a rounding at the edge of two cannot spoil all that follow.
    signal, excitation = past, np.full(batch, mulaw.ZERO)
    for n in range(samples):
        prediction = -sum(a[n // FRAME_SAMPLES, :, j] * signal[-1 - j] for j in range(LPC_ORDER))
        np.testing.assert_allclose(heard.last[n], mulaw.encode(signal[-1]), atol=0.02)
        np.testing.assert_allclose(heard.prediction[n], mulaw.encode(prediction), atol=0.02)
        np.testing.assert_allclose(heard.excitation[n], excitation, atol=0.02)
        np.testing.assert_allclose(heard.target[n], mulaw.encode(spoken[n] - prediction), atol=0.02)
        if n + 1 < samples:
            excitation = np.round(heard.excitation[n + 1])
        wanted = np.clip(np.asarray(heard.target[n]) + noise[n], 0, 255)
        assert np.abs(excitation - wanted).max() < 0.52 or n + 1 == samples
        signal = np.concatenate([signal, (prediction + mulaw.decode(excitation))[None]])


def test_noise_has_the_spread_it_says():
    noise = draw_noise(jax.random.key(0), 400, 1000)
    np.testing.assert_array_equal(noise, np.round(noise))
    assert float(jnp.std(noise, axis=0).mean()) == pytest.approx(2.0, rel=0.1)
    assert abs(float(noise.mean())) < 0.02


def test_random_rounding_is_right_in_the_mean():
    between = Heard(*(np.full((4000, 4), x, np.float32) for x in (100.25, 254.9, 77, 3.4)))
    indices, target = noisy_indices(between, jax.random.key(0), 0.0, whole=True)
    np.testing.assert_allclose(indices.mean(axis=(1, 2)), [100.25, 254.9, 77.0], atol=0.02)
    assert (target == 3).all()
    assert int(noisy_indices(between, jax.random.key(0), 3.0, whole=True)[0].max()) == 255
    np.testing.assert_array_equal(noisy_indices(between, None, 3.0, whole=True)[0][:, 0, 0], [100, 255, 77])


def test_training_steps_lower_the_loss_and_reach_every_weight(task):
    model, batch = fresh(), task.batch(np.random.default_rng(0))
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(model, state, key):
        (loss, _), gradient = jax.value_and_grad(task.loss, has_aux=True)(model, batch, key, jnp.asarray(0))
        update, state = optimizer.update(gradient, state)
        return optax.apply_updates(model, update), state, loss, gradient

    state, losses = jax.jit(optimizer.init)(model), []
    for number in range(12):
        model, state, loss, gradient = step(model, state, jax.random.key(number))
        losses.append(float(loss))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert losses[0] == pytest.approx(np.log(256), abs=0.1)
    assert losses[-1] < losses[0] - 0.2
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def test_validation_is_repeatable_and_the_schedule_warms_up(task):
    model = fresh()
    figures = task.validate(model)
    assert set(figures) == {"loss", "clean", "linear"}
    assert figures == task.validate(model)
    assert all(abs(figures[name] - np.log(256)) < 0.1 for name in ("loss", "clean"))
    optimizer = task.optimizer(1000)
    one = {"x": jnp.ones(())}

    def update(state, _):
        update, state = optimizer.update(one, state, one)
        return state, -update["x"]

    _, sizes = jax.jit(lambda: jax.lax.scan(update, optimizer.init(one), length=61))()
    assert sizes[0] == pytest.approx(2e-5, rel=0.01)
    assert sizes[60] == pytest.approx(2e-3, rel=0.05)


def test_muon_steps_matrices_orthogonally_and_tables_as_adam_does(task):
    rng = np.random.default_rng(0)
    shapes = {"embedding_kernels": (3, 4, 6), "gru_b/kernel": (6, 4), "embedding": (6, 4), "output/factors": (2, 4)}
    gradient = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    optimizer = replace(task, settings=replace(task.settings, muon=True)).optimizer(1000)
    steps, _ = jax.jit(lambda g: optimizer.update(g, optimizer.init(g), g))(gradient)
    for name, step in steps.items():
        step = step / 2e-5  # the rate of the first step
        if name in TABLES or name.endswith("factors"):
            # All of one size, whatever the gradient.
            np.testing.assert_allclose(step, -np.sign(gradient[name]) * np.abs(step).mean(), rtol=1e-3)
        else:
            # Singular values near one, times 0.2 and the root of the longer side.
            values = np.linalg.svd(step, compute_uv=False) / (0.2 * 6**0.5)
            assert 0.6 < values.min() <= values.max() < 1.3


def test_muon_is_refused_where_there_is_no_choice(tmp_path):
    with pytest.raises(ValueError, match="for muon, found lossgen"):
        train("lossgen", TrainConfig(out=tmp_path, muon=True))
