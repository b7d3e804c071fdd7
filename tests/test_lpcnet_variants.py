"""LPCNet in blocks, in bunches and with linear prediction of its own: each against what it stands for."""

from dataclasses import asdict, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import keep_within_16_indices
from flax import nnx
from jax.test_util import check_grads

from jdred import weights
from jdred.config import FRAME_SAMPLES, LPCNetConfig
from jdred.dsp import lpc, mulaw
from jdred.layers import GRU, gru_gates
from jdred.models import load_vocoder
from jdred.training.lpcnet import LPCNetSettings, Speech, judge, noisy_indices, objective, observe
from jdred.vocoder import VocoderInput, sampling, sparse
from jdred.vocoder.bunch import look_up, one_period_ago, read_by_bunch
from jdred.vocoder.lpcnet import LPCNet, LPCNetVoice, fold, linear_prediction
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


# Speaking and hearing

SMALL = LPCNetConfig(gru_a=24, gru_b=8, condition=16, embedding=8, pitch_embedding=4)
BLOCKS = replace(SMALL, gru_a=2 * sparse.BLOCK, density=(0.5, 0.5, 1.0))
VARIANTS = {
    "bunch of 4": replace(SMALL, bunch=4),
    "blocks": BLOCKS,
    "end to end": replace(SMALL, end_to_end=True),
    "long term": replace(SMALL, bunch=4, long_term=True),
    "all at once": replace(BLOCKS, bunch=2, long_term=True, end_to_end=True, lpc_gamma=0.9),
}
KNOWN = LPCNetVoice.prime_rows * FRAME_SAMPLES + FRAME_SAMPLES // 2


def loud(config: LPCNetConfig) -> LPCNet:
    """A network in which every part matters, whose excitations stay within 16 indices of zero."""
    rng = np.random.default_rng(1)
    fresh = jax.jit(lambda: LPCNet(config, rngs=nnx.Rngs(0)))()
    model = jax.tree.map(lambda a: a + jnp.asarray(rng.normal(0, 0.2, a.shape), jnp.float32), fresh)
    keep_within_16_indices(model)
    if model.reflections is not None:
        model.reflections.kernel[...] = 0.3 * model.reflections.kernel[...]
    return model


@pytest.mark.parametrize("name", VARIANTS)
def test_hearing_what_was_said_goes_on_as_if_it_had_never_ceased(name):
    """The parallel twin, on which training rests, reads what the steps read, sample by sample."""
    rng = np.random.default_rng(3)
    features = rng.normal(0, 0.3, (4, 20)).astype(np.float32)
    features[:, 0] += 2
    xs = VocoderInput(features, rng.random((4, FRAME_SAMPLES, 8)).astype(np.float32))
    voice = fold(loud(VARIANTS[name]), post_filter=0.0)

    @jax.jit
    def by_steps(voice, xs):
        state, said = jax.lax.scan(voice.step, voice.init_state(), jax.tree.map(lambda a: a[:3], xs))
        return state, said, voice.step(state, jax.tree.map(lambda a: a[3], xs))

    state, said, beyond = by_steps(voice, xs)
    said = np.asarray(said).reshape(-1)
    assert 0.001 < np.abs(said).max() < 1
    assert len(np.unique(said)) > 100

    @jax.jit
    def by_hearing(voice, pcm, xs):
        state, rest = voice.prime(xs.features[:3], pcm, xs.uniforms[2])
        return state, rest, voice.step(state, jax.tree.map(lambda a: a[3], xs))

    primed, rest, then = by_hearing(voice, said[:KNOWN], xs)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-3)
    jax.tree.map(close, primed, state)
    np.testing.assert_allclose(rest, said[KNOWN:], atol=1e-5)
    jax.tree.map(close, then[0], beyond[0])
    np.testing.assert_allclose(then[1], beyond[1], atol=1e-5)


def test_gru_a_reads_each_sample_once_and_those_of_a_bunch_after_it():
    indices = jnp.arange(3 * 8, dtype=jnp.int32).reshape(3, 8)
    read = np.asarray(read_by_bunch(indices, 4))
    assert read[:, 0].tolist() == [mulaw.ZERO] * 9 + [0, 8, 16]
    assert read[:, 1].tolist() == [1, 9, 17, 2, 10, 18, 3, 11, 19, 4, 12, 20]
    np.testing.assert_array_equal(read_by_bunch(indices, 1), indices)


def test_one_period_ago_is_two_samples_early_and_silence_before_the_first_sample():
    features = np.zeros((2, 2, 20), np.float32)
    features[:, :, 18] = np.log2(256 / np.asarray([[40, 255], [100, 32]])) - 1.5
    excitation = jnp.arange(2 * FRAME_SAMPLES)[:, None] + jnp.asarray([0, 1000])
    ago = np.asarray(one_period_ago(excitation, features))
    assert ago[:38, 0].tolist() == [mulaw.ZERO] * 38
    assert ago[38:160, 0].tolist() == list(range(122))
    assert ago[160:, 0].tolist() == list(range(62, 222))
    assert ago[:160, 1].tolist() == [mulaw.ZERO] * 160
    assert ago[160:, 1].tolist() == list(range(1130, 1290))


def test_training_reads_what_priming_reads_of_many_streams():
    rng = np.random.default_rng(5)
    features = jnp.asarray(rng.normal(0, 0.3, (2, 3, 20)) + 3 * (np.arange(20) < 1), jnp.float32)
    signal = jnp.asarray(300 * rng.normal(size=(2 * FRAME_SAMPLES, 3)).cumsum(axis=0) / 3, jnp.float32)
    voice = fold(loud(VARIANTS["long term"]), post_filter=0.0)

    @jax.jit
    def both(voice, features, signal):
        a = linear_prediction(voice, features, None)
        speech = Speech(signal, jnp.zeros((16, 3)), signal)
        trained, _ = noisy_indices(observe(speech, a, features), None, 0.0, whole=True)
        many, excitation = voice.observe(a, features, signal.T)
        one, _ = voice.observe(a[:, 1], features[:, 1], signal[:, 1])
        return trained, many, one, excitation

    trained, many, one, excitation = both(voice, features, signal)
    assert trained.shape == (4, 2 * FRAME_SAMPLES, 3)
    assert len(np.unique(trained[3])) > 20
    np.testing.assert_array_equal(trained, many)
    np.testing.assert_array_equal(many[..., 1], one)
    # What was the last excitation before a sample is remembered, oldest first.
    np.testing.assert_array_equal(excitation[:, :-1].T, many[2, -255:])


# Linear prediction of its own


def test_step_up_gives_the_coefficients_of_reflections(rng):
    reflections = jnp.asarray(rng.uniform(-0.9, 0.9, (3, 16)), jnp.float32)
    a = np.asarray(jax.jit(lpc.step_up)(reflections))
    # The last coefficient is the last reflection; stepping down again finds the others; all poles are inside.
    for row, wanted in zip(a.astype(np.float64), np.asarray(reflections), strict=True):
        assert np.abs(np.roots([1, *row])).max() < 1
        for order in range(16, 0, -1):
            k = row[order - 1]
            assert k == pytest.approx(wanted[order - 1], abs=2e-3)
            row = (row[: order - 1] - k * row[: order - 1][::-1]) / (1 - k * k)
    check_grads(lpc.step_up, (reflections[:1, :6],), order=1, modes=["rev"], rtol=2e-2)
    cepstrum = jnp.asarray(rng.normal(0, 0.3, (2, 18)), jnp.float32)
    both = jax.jit(lambda c: (lpc.step_up(lpc.reflections_from_cepstrum(c)), lpc.lpc_from_cepstrum(c)))(cepstrum)
    np.testing.assert_allclose(*both, atol=1e-5)


def test_between_two_indices_tables_and_likelihoods_are_interpolated(rng):
    tables, logits = jnp.asarray(rng.normal(size=(2, 256, 3))), jnp.asarray(rng.normal(size=256))
    at = jax.jit(lambda *x: (look_up(tables, jnp.asarray(x)), jnp.exp(sampling.log_likelihood(logits, x[0]))))
    low, high, middle = at(7, 254), at(8, 255), at(7.25, 254.25)
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(0.75 * a + 0.25 * b, c, rtol=1e-4), low, high, middle)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), at(8.0, 255.0), high)
    slope = jax.grad(lambda x: sampling.log_likelihood(logits, x))(7.25)
    assert float(slope) == pytest.approx(float((high[1] - low[1]) / middle[1]), rel=1e-3)


@pytest.fixture(scope="module")
def speech():
    """Rows and coloured noise, damaged."""
    rng = np.random.default_rng(0)
    features = rng.normal(0, 0.2, (2, 3, 20)) + 3 * (np.arange(20) < 2)
    spoken = 300 * rng.normal(size=(2 * FRAME_SAMPLES + 16, 3)).cumsum(axis=0) / 3
    damaged = spoken * (1 + 0.05 * rng.normal(size=spoken.shape))
    parts = features, spoken[16:], spoken[:16], damaged[16:]
    features, *signals = (jnp.asarray(x, jnp.float32) for x in parts)
    return features, Speech(*signals)


def test_gradient_through_the_prediction_is_that_of_finite_differences(speech):
    features, speech = speech
    settings = LPCNetSettings(model=VARIANTS["all at once"])
    model, key = loud(settings.model), jax.random.key(0)

    @jax.jit
    def loss(reflections, condition):
        own = jax.tree.map(lambda a: a, model)
        own.reflections = reflections
        return judge(settings, own, features, condition, speech, key)[0]

    condition = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (2, 3, 16)), jnp.float32)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(model.reflections, condition)
    at = (model.reflections, condition)
    step = 3e-4
    for part in range(2):
        # Along the gradient, where the change is largest: it stands out from the kinks of interpolation.
        size = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradient[part])))
        ends = []
        for sign in (1, -1):
            there = jax.tree.map(lambda a, g, by=sign * step / size: a + by * g, at[part], gradient[part])
            ends.append(float(loss(*[there if i == part else at[i] for i in range(2)])))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(size), rel=0.03)


def test_a_step_of_training_reaches_every_weight():
    rng = np.random.default_rng(0)
    config = VARIANTS["all at once"]
    pcm = np.cumsum(rng.normal(0, 200, (2, 6 * FRAME_SAMPLES)), axis=1).astype(np.int16)
    features = (rng.normal(0, 0.2, (2, 6, 20)) + 3 * (np.arange(20) < 2)).astype(np.float32)
    settings = LPCNetSettings(model=config, batch=2, rows=2)
    model = jax.jit(lambda: LPCNet(config, rngs=nnx.Rngs(0)))()

    @jax.jit
    def step(model, key):
        (loss, figures), gradient = jax.value_and_grad(partial(objective, settings), has_aux=True)(
            model, {"pcm": pcm, "features": features}, key
        )
        size = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradient)))
        return jax.tree.map(lambda a, g: a - 0.1 * g / size, model, gradient), loss, figures, gradient

    after, loss, figures, gradient = step(model, jax.random.key(0))
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
    assert float(figures["entropy"]) == pytest.approx(np.log(256), abs=0.1)
    assert step(after, jax.random.key(0))[1] < loss


def test_the_networks_own_prediction_is_stable_and_used(speech):
    features, _ = speech
    config = VARIANTS["end to end"]
    model = loud(config)
    condition = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (2, 3, 16)), jnp.float32)
    a = np.asarray(jax.jit(linear_prediction)(model, features, condition)).reshape(-1, 16)
    assert all(np.abs(np.roots([1, *row])).max() < 1 for row in a.astype(np.float64))
    assert np.abs(a - np.asarray(lpc.lpc_from_cepstrum(features[..., :18])).reshape(-1, 16)).max() > 0.1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"bunch": 3}, "bunch must be 1, 2 or 4, found 3"),
        ({"density": (0.5, 1.5, 1)}, "density must be 0 .. 1, found 1.5"),
        (
            {"gru_a": 200, "density": (0.2, 0.2, 0.4)},
            "gru_a must be a multiple of 32 where density is below 1, found 200",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        LPCNetConfig(**sizes)


def test_weights_of_a_variant_come_back_as_the_same_voice(tmp_path):
    config = VARIANTS["all at once"]
    model = jax.jit(lambda: LPCNet(config, rngs=nnx.Rngs(0)))()
    weights.write(tmp_path / "own.npz", weights.flatten(model), {"kind": "lpcnet", "model": asdict(config)}, half=False)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), load_vocoder(str(tmp_path / "own.npz")), fold(model))
