"""Packet loss concealment: predictor, concealer, training task."""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import GOLDEN, golden_clips, load_golden
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Float

from jdred.config import PredictorConfig
from jdred.dsp.burg import burg_features as eager_burg_features
from jdred.dsp.features import EXTRACTOR, extract
from jdred.plc import concealer as plc
from jdred.plc import predictor as inputs
from jdred.plc.concealer import SILENCE, Concealer, ConcealerInput, attenuate
from jdred.plc.predictor import Predictor
from jdred.streaming import batch_state
from jdred.training.plc import (
    PLCSettings,
    PLCTask,
    draw_losses,
    hold_objective,
    network_inputs,
    prediction_loss,
)

burg_features = jax.jit(eager_burg_features)

SCALE = 2.0**20
"""Sample n of the test signal is n / SCALE, so that every sample says where it belongs."""
COUNTER = 5
"""The feature that holds the number of its row."""


def small_predictor(seed: int = 0) -> Predictor:
    return Predictor(PredictorConfig(width=8, gru=12), rngs=nnx.Rngs(seed))


@jax.tree_util.register_static
@dataclass(frozen=True)
class CountingAnalyser:
    """Row k holds the number k."""

    def init_state(self):
        return jnp.zeros(())

    def step(self, k, pcm):
        return k + 1, jnp.zeros(20).at[COUNTER].set(k)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FakeVocoder:
    """Speaks the places of a row's samples, its uniform numbers, or its c_0 / 32, as ``mix`` weighs them.

    It is handed ``lookahead_rows`` rows before it speaks. State: those rows, then the number of rows primed on, of rows
    spoken, and of past samples that were not in their places.
    """

    mix: Float[Array, "3"]
    lookahead_rows: int = field(default=0, metadata={"static": True})
    prime_rows: ClassVar[int] = 2
    floor: ClassVar[float] = -10.0

    def init_state(self):
        return jnp.zeros((self.lookahead_rows, 20)), jnp.zeros(3)

    def step(self, state, x):
        ahead, counts = state
        queue = jnp.concatenate([ahead, x.features[None]])
        return (queue[1:], counts + jnp.array([0, 1, 0])), self._samples(queue[0], x.uniforms)

    def prime(self, features, pcm, uniforms):
        assert features.shape == (3 + self.lookahead_rows, 20)
        assert pcm.shape == (400,)
        past, last, ahead = features[:2], features[2], features[3:]
        places = jnp.concatenate([*(self._places(row) for row in past), self._places(last)[:80]])
        misplaced = (jnp.abs(pcm - places) > 0.1 / SCALE).sum()
        return (ahead, jnp.array([3.0, 0, 0]).at[2].set(misplaced)), self._samples(last, uniforms)[80:]

    def _places(self, row):
        return (160 * row[COUNTER] - 80 + jnp.arange(160)) / SCALE

    def _samples(self, row, uniforms):
        sounds = jnp.stack([self._places(row), uniforms[:, 0], jnp.full(160, row[0] / 32)])
        return self.mix[0] * sounds[0] + self.mix[1] * sounds[1] + self.mix[2] * sounds[2]


PLACES, UNIFORMS, LOUDNESS = (FakeVocoder(jnp.eye(3)[i]) for i in range(3))
AHEAD = FakeVocoder(jnp.eye(3)[0], lookahead_rows=1)


def counting_concealer(vocoder: FakeVocoder = PLACES) -> Concealer:
    return Concealer(small_predictor(), vocoder, CountingAnalyser())


def counting_input(lost, fill=np.nan, count=3) -> ConcealerInput:
    """Every packet of the counted signal and ``count`` rows of it; what does not apply is ``fill``."""
    lost = np.asarray(lost, bool)
    n = len(lost)
    pcm = np.arange(320 * n, dtype=np.float32).reshape(n, 320) / SCALE
    rows = np.zeros((n, count, 20), np.float32)
    rows[..., COUNTER] = 2 * np.arange(n)[:, None] + np.arange(count)
    return ConcealerInput(
        pcm=np.where(lost[:, None], fill, pcm).astype(np.float32),
        lost=lost,
        rows=np.where(lost[:, None, None], rows, fill).astype(np.float32),
        known=np.repeat(lost[:, None], count, axis=1),
        uniforms=np.zeros((n, 3, 160, 8), np.float32),
    )


LENGTH = 58


@jax.jit
def _run(concealer: Concealer, xs: ConcealerInput):
    def body(state, x):
        state, pcm = concealer.step(state, x)
        return state, (state, pcm)

    return jax.lax.scan(body, concealer.init_state(), xs)[1]


def run(concealer: Concealer, xs: ConcealerInput):
    """The states after each packet and what is played; always scans ``LENGTH`` packets, to compile but once."""
    n = len(xs.lost)
    padded = jax.tree.map(lambda a: np.concatenate([a, np.zeros((LENGTH - n, *a.shape[1:]), a.dtype)]), xs)
    return jax.tree.map(lambda a: np.asarray(a)[:n], _run(concealer, padded))


def after(states, packet: int):
    return jax.tree.map(lambda a: a[packet], states)


def random_input(rng, n: int, loss: float = 0.5) -> ConcealerInput:
    return ConcealerInput(
        pcm=rng.uniform(-0.3, 0.3, (n, 320)).astype(np.float32),
        lost=rng.random(n) < loss,
        rows=rng.normal(size=(n, 3, 20)).astype(np.float32),
        known=rng.random((n, 3)) < 0.5,
        uniforms=rng.random((n, 3, 160, 8)).astype(np.float32),
    )


# Predictor


def test_input_forms():
    burg, features = np.arange(36.0), 100 + np.arange(20.0)
    zeros = np.zeros
    assert inputs.NUM_INPUTS == 57
    np.testing.assert_array_equal(inputs.received(burg, features), np.r_[burg, features, 1])
    np.testing.assert_array_equal(inputs.resumed(burg), np.r_[burg, zeros(20), 1])
    np.testing.assert_array_equal(inputs.described(features), np.r_[zeros(36), features, -1])
    np.testing.assert_array_equal(inputs.lost(), zeros(57))
    assert inputs.resumed(np.zeros((3, 36))).shape == inputs.lost((3,)).shape == (3, 57)


def test_predictor_scan_is_its_steps(rng):
    predictor = small_predictor()
    xs = jnp.asarray(rng.normal(size=(7, 2, 57)), jnp.float32)
    start = batch_state(predictor.init_state(), (2,))
    state, ys = predictor.scan(start, xs)
    step_state, step_ys = jax.lax.scan(predictor.step, start, xs)
    np.testing.assert_allclose(ys, step_ys, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, step_state)


def _libopus_predictor() -> Predictor:
    path = GOLDEN.parent / "libopus" / "dense_1_6_1.npz"
    if not path.is_file():
        pytest.skip(f"weights of libopus absent: {path}")
    stored = np.load(path)
    model = Predictor(PredictorConfig(), rngs=nnx.Rngs(0))
    arrays = [(model.dense_in, "dense_in", ""), (model.dense_out, "dense_out", "")]
    arrays += [(gru, name, part) for gru, name in ((model.first, "gru1"), (model.second, "gru2"))
               for part in ("input", "recurrent")]  # fmt: skip
    for layer, name, part in arrays:
        key = f"plc/plc_{name}_{part}".rstrip("_")
        kernel, bias = ("recurrent", "recurrent_bias") if part == "recurrent" else ("kernel", "bias")
        setattr(layer, kernel, nnx.Param(jnp.asarray(stored[f"{key}/W"].T)))
        setattr(layer, bias, nnx.Param(jnp.asarray(stored[f"{key}/b"])))
    return model


def test_predictor_with_libopus_weights_is_libopus():
    data, model = load_golden("fargan"), _libopus_predictor()
    for clip in golden_clips(data):
        expected = data[f"{clip}/plcnet/net_out"]
        state, ys = jax.jit(lambda x: model.scan(model.init_state(), x))(data[f"{clip}/plcnet/net_in"])
        error = np.sqrt(np.mean((ys - expected) ** 2) / np.mean(expected**2))
        assert error < 0.02, clip  # libopus computes with 8-bit activations
        np.testing.assert_allclose(state.first, data[f"{clip}/plcnet/gru1_last"], atol=0.1)
        np.testing.assert_allclose(state.second, data[f"{clip}/plcnet/gru2_last"], atol=0.1)


def test_received_rows_are_those_of_libopus():
    """Burg features and row k of the features enter together; a lost frame enters as zeros."""
    data, features = load_golden("fargan"), load_golden("features")
    for clip in golden_clips(data):
        net_in = data[f"{clip}/plc_ge20/net_in"]
        first_loss = int(np.argmax(net_in[:, 56] == 0))
        frame = int(np.argmax(data[f"{clip}/plc_ge20/lost_10ms"]))
        frames = slice(frame - first_loss, frame)
        expected = inputs.received(features[f"{clip}/burg36"][frames], features[f"{clip}/features36"][frames, :20])
        np.testing.assert_allclose(
            net_in[:first_loss, :54], expected[:, :54], atol=2e-3
        )  # pitch: as tracked since then
        np.testing.assert_array_equal(net_in[first_loss], inputs.lost())
        pcm = data[f"{clip}/pcm"][160 * frame - 160 * first_loss : 160 * frame].reshape(-1, 160)
        np.testing.assert_allclose(net_in[:first_loss, :36], burg_features(np.float32(pcm / 32768)), atol=2e-3)


# Attenuation


def test_attenuation_values():
    counts = np.arange(14)
    features = np.arange(20, dtype=np.float32) + 40
    faded = np.asarray(attenuate(jnp.tile(features, (14, 1)), counts, -15.0))
    expected = [0, 0, -0.1, -0.1, -0.2, -0.2, -0.4, -0.4, -0.8, -0.8, -1.8, -2.8, -3.8, -4.8]
    np.testing.assert_allclose(faded[:, 0] - features[0], expected, atol=1e-5)
    np.testing.assert_array_equal(faded[:, 1:], np.tile(features[1:], (14, 1)))
    assert attenuate(jnp.zeros(20), jnp.asarray(100), -10.0)[0] == -10


def test_attenuation_is_half_of_that_of_libopus():
    data = load_golden("fargan")
    for clip in golden_clips(data):
        for trace in ("rand20", "ge20"):
            lost, calls, outputs, spoken = (
                data[f"{clip}/plc_{trace}/{k}"]
                for k in ("lost_10ms", "net_calls_so_far", "net_out", "vocoder_features")
            )
            where = np.flatnonzero(lost)
            count = np.array([k - np.flatnonzero(lost[: k + 1] == 0)[-1] for k in where])
            predicted = outputs[calls[where] - 1]
            ours = np.asarray(attenuate(jnp.asarray(predicted), count, -np.inf)) - predicted
            expected = np.maximum((predicted + 2 * ours)[:, 0], -15.0)
            np.testing.assert_allclose(expected, spoken[where, 0], atol=1e-5)
            np.testing.assert_array_equal(predicted[:, 1:], spoken[where, 1:])


# Concealer: who speaks which sample


@pytest.mark.parametrize("gap", [1, 2, 5, 50])
@pytest.mark.parametrize("before", [0, 2, 3])
@pytest.mark.parametrize("vocoder", [PLACES, AHEAD], ids=["", "look ahead"])
def test_every_sample_comes_from_its_row(gap, before, vocoder):
    concealer = counting_concealer(vocoder)
    lost = np.array([0] * before + [1] * gap + [0, 0, 1, 0], bool)
    states, pcm = run(concealer, counting_input(lost, count=concealer.conceal_rows))
    start = 0 if before else 80  # before a stream begins there is silence
    np.testing.assert_allclose(pcm.reshape(-1)[start:], np.arange(start, pcm.size) / SCALE, atol=1e-8)
    state = after(states, before + gap - 1)
    ahead, (primed, spoken, misplaced) = state.vocoder
    np.testing.assert_array_equal(ahead[:, COUNTER], 2 * (before + gap) + 1 + np.arange(vocoder.lookahead_rows))
    assert (primed, spoken) == (3, 2 * gap)
    assert misplaced == 0 or not before
    np.testing.assert_allclose(state.pending, (320 * (before + gap) + np.arange(80)) / SCALE, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=10, max_size=10))
def test_any_loss_pattern_leaves_a_seamless_signal(lost):
    concealer = counting_concealer()
    lost = [False, False, *lost]
    states, pcm = run(concealer, counting_input(lost))
    np.testing.assert_allclose(pcm.reshape(-1), np.arange(pcm.size) / SCALE, atol=1e-8)
    np.testing.assert_array_equal(states.concealed, lost)
    assert not states.vocoder[1][:, 2].any()


def test_uniforms_belong_to_rows(rng):
    concealer = counting_concealer(UNIFORMS)
    xs = counting_input([0, 1, 1])._replace(uniforms=rng.random((3, 3, 160, 8)).astype(np.float32))
    states, pcm = run(concealer, xs)
    u = xs.uniforms[..., 0]
    np.testing.assert_array_equal(pcm[1], np.r_[u[1, 0, 80:], u[1, 1], u[1, 2, :80]])
    np.testing.assert_array_equal(pcm[2], np.r_[u[1, 2, 80:], u[2, 1], u[2, 2, :80]])
    np.testing.assert_array_equal(states.pending[2], u[2, 2, 80:])


@pytest.mark.parametrize(("first", "second", "power"), [
    ([0, 0, 0], [1, 1, 1], 2), ([0, 0, 0], [0, 0, 1], 2), ([1, 1, 1], [0, 0, 0], 8), ([1, 1, 1], [1, 1, 0], 8),
])  # fmt: skip
def test_fade_in_after_a_gap(first, second, power):
    """Earlier where what is left of the gap, from the last row of the second packet, was predicted."""
    concealer = counting_concealer(UNIFORMS)
    xs = counting_input([1, 1, 0, 0], fill=0.0)
    xs = xs._replace(pcm=np.full((4, 320), -0.5, np.float32), uniforms=np.full((4, 3, 160, 8), 0.25, np.float32))
    _, pcm = run(concealer, xs._replace(known=np.array([first, second, [0] * 3, [0] * 3], bool)))
    spoken = np.cos(np.pi * np.arange(80) / 160) ** power
    np.testing.assert_allclose(pcm[2, :80], -0.5 * (1 - spoken) + 0.25 * spoken, atol=1e-6)
    np.testing.assert_array_equal(pcm[2, 80:], -0.5)
    np.testing.assert_array_equal(pcm[3], -0.5)


def test_good_packets_pass_bit_exactly(rng):
    concealer = counting_concealer()
    xs = random_input(rng, 6, loss=0.0)
    _, pcm = run(concealer, xs)
    np.testing.assert_array_equal(pcm, xs.pcm)


def test_spoken_sound_is_clipped():
    concealer = counting_concealer(LOUDNESS)
    xs = counting_input([1, 1, 0], fill=0.0)
    rows = xs.rows.copy()
    rows[..., 0] = 64.0
    states, pcm = run(concealer, xs._replace(rows=rows))
    assert np.max(pcm) == np.max(states.pcm) == np.max(states.pending) == 1.0


# Concealer: what the predictor hears and says


def test_predictor_hears_every_frame_once(rng):
    """No look ahead stays: after any gap the state is that of one step per frame, with features of the sound heard."""
    concealer = Concealer(small_predictor(), PLACES)
    xs = random_input(rng, 6)
    lost = np.array([0, 0, 1, 1, 0, 0], bool)
    known = np.array([[0, 0, 0]] * 2 + [[0, 0, 0], [1, 1, 0]] + [[0, 0, 0]] * 2, bool)
    states, _ = run(concealer, xs._replace(lost=lost, known=known))
    burg, rows = burg_features(xs.pcm.reshape(-1, 160)), states.rows.reshape(-1, 20)
    np.testing.assert_allclose(rows[:4], extract(xs.pcm[:2].reshape(-1)), atol=1e-3)
    expected = [
        *(inputs.received(burg[k], rows[k]) for k in range(4)),
        *(inputs.lost() for _ in range(2)),
        *(inputs.described(xs.rows[3, i]) for i in range(2)),
        inputs.resumed(burg[8]),
        *(inputs.received(burg[k], rows[k]) for k in range(9, 12)),
    ]
    predictor = concealer.predictor
    expected_state, _ = predictor.scan(predictor.init_state(), jnp.stack(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[-1], b, atol=1e-5), states.predictor, expected_state)


def test_rows_end_in_mid_gap():
    """Known rows are spoken as they are; then the prediction goes on, fading from its first frame."""
    concealer = counting_concealer(LOUDNESS)
    xs = counting_input([0, 1, 1, 1], fill=0.0)
    rows = xs.rows.copy()
    rows[..., 0] = 8.0
    known = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    states, pcm = run(concealer, xs._replace(rows=rows, known=known))
    predictor = concealer.predictor
    burg = burg_features(xs.pcm[0].reshape(2, 160))
    heard = jnp.zeros((2, 20)).at[:, COUNTER].set(jnp.arange(2.0))
    steps = [*inputs.received(burg, heard), *(inputs.described(rows[1, i]) for i in range(3))]
    steps += [inputs.lost() for _ in range(4)]
    _, predicted = predictor.scan(predictor.init_state(), jnp.stack(steps))
    said = attenuate(predicted[5:], np.arange(1, 5), -10.0)[:, 0]
    c0 = np.r_[8.0, 8.0, 8.0, said]  # rows 2 .. 8; the gap begins at sample 320, in the middle of row 2
    expected = np.repeat(np.clip(c0 / 32, -1, 1), 160)[80:]
    np.testing.assert_allclose(pcm[1:].reshape(-1), expected[: 3 * 320], atol=1e-6)
    np.testing.assert_allclose(states.pending[-1], expected[3 * 320 :], atol=1e-6)
    np.testing.assert_array_equal(states.predicted, [0, 0, 1, 3])


def test_what_lies_ahead_is_predicted_and_never_kept():
    """Rows K .. K + 3 where the last two are not described: both are predictions; only rows K, K + 1 are remembered."""
    concealer = counting_concealer(FakeVocoder(jnp.eye(3)[2], lookahead_rows=1))
    xs = counting_input([0, 1], fill=0.0, count=4)
    xs.rows[..., 0], xs.known[1] = 8.0, [1, 1, 0, 0]
    states, pcm = run(concealer, xs)
    predictor = concealer.predictor
    heard = jnp.zeros((2, 20)).at[:, COUNTER].set(jnp.arange(2.0))
    received = inputs.received(burg_features(xs.pcm[0].reshape(2, 160)), heard)
    followed = jnp.concatenate([received, inputs.described(xs.rows[1, :2])])
    kept, _ = predictor.scan(predictor.init_state(), followed)
    _, predicted = predictor.scan(kept, inputs.lost((2,)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[-1], b, atol=1e-5), states.predictor, kept)
    said = attenuate(predicted, np.array([1, 2]), -10.0)
    np.testing.assert_allclose(pcm[1], np.repeat([8.0 / 32, float(said[0, 0]) / 32], [240, 80]), atol=1e-6)
    np.testing.assert_allclose(states.vocoder[0][1, 0], said[1], atol=1e-5)
    assert states.predicted[1] == 0


def test_a_stream_that_begins_lost_is_silent():
    _, row = EXTRACTOR.scan(EXTRACTOR.init_state(), jnp.zeros((1, 160)))
    np.testing.assert_allclose(plc.SILENCE[:18], row[0, :18], atol=1e-4)
    concealer = counting_concealer(LOUDNESS)
    xs = counting_input([1, 1])._replace(known=np.zeros((2, 3), bool))
    _, pcm = run(concealer, xs)
    np.testing.assert_allclose(pcm, -10 / 32, atol=1e-6)


# Concealer: contract


def test_halves_chunks_and_vmap_agree(rng):
    concealer = counting_concealer(UNIFORMS)
    start = concealer.init_state()
    streams = [random_input(rng, 6) for _ in range(3)]
    singles = [run(concealer, xs) for xs in streams]
    batched = jax.tree.map(lambda *a: np.stack(a, axis=1), *streams)

    @jax.jit
    def many(concealer, states, xs):
        return jax.lax.scan(jax.vmap(concealer.step), states, xs)

    states, pcm = many(concealer, batch_state(start, (3,)), batched)
    good, conceal = (jax.jit(partial(f, concealer)) for f in (Concealer.good, Concealer.conceal))
    for i, (xs, (stepped, single)) in enumerate(zip(streams, singles, strict=True)):
        np.testing.assert_allclose(pcm[:, i], single, atol=1e-6)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b[-1], atol=1e-5), states, stepped)
        s, out = start, []
        for k in range(6):
            s, y = conceal(s, xs.rows[k], xs.known[k], xs.uniforms[k]) if xs.lost[k] else good(s, xs.pcm[k])
            out.append(y)
        np.testing.assert_allclose(np.stack(out), single, atol=1e-6)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), s) == jax.tree.map(lambda a: (a.shape, a.dtype), start)


def test_same_input_same_bytes(rng):
    concealer = counting_concealer(UNIFORMS)
    xs = random_input(rng, 5)
    first, second = (run(concealer, xs) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_nan_of_what_does_not_apply_leaks_nowhere(rng):
    concealer = counting_concealer(UNIFORMS)
    xs = random_input(rng, 6)._replace(lost=np.array([0, 1, 1, 0, 1, 0], bool))
    dirty = xs._replace(
        pcm=np.where(xs.lost[:, None], np.nan, xs.pcm),
        rows=np.where((xs.known & xs.lost[:, None])[..., None], xs.rows, np.nan),
    )
    clean = run(concealer, xs)
    jax.tree.map(np.testing.assert_array_equal, run(concealer, dirty), clean)

    @jax.jit
    @jax.grad
    def slope(predictor, xs):
        model = Concealer(predictor, LOUDNESS, CountingAnalyser())
        begun = model.init_state()._replace(predicted=jnp.zeros((), jnp.int32))  # no longer faded to the floor
        streams = batch_state(begun, xs.lost.shape)
        return jax.vmap(model.step)(streams, xs)[1].sum()

    gradient = slope(concealer.predictor, dirty)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


# Training


class NoiseCorpus:
    """Stands for ``Prepared``: noise that a network can learn nothing from, but its mean."""

    def crops(self, rng, batch, frames):
        features = rng.normal(0.5, 1, (batch, frames, 20)).astype(np.float32)
        return {"features": features, "burg": rng.normal(size=(batch, frames, 36)).astype(np.float32)}


TINY = PLCSettings(model=PredictorConfig(width=8, gru=12), batch=8, frames=40, validation_sequences=4, warmup_steps=1)


def test_network_inputs():
    lost = np.array([0, 0, 1, 1, 0, 0, 0, 0], bool)
    burg_known = np.array([1, 1, 1, 0, 1, 0, 0, 1], bool)
    features, burg = np.full((8, 20), 2.0), np.full((8, 36), 3.0)
    x = np.asarray(network_inputs(features, burg, lost, burg_known))
    received, lost_row, resumed, described = (
        inputs.received(burg[0], features[0]), inputs.lost(), inputs.resumed(burg[0]), inputs.described(features[0])
    )  # fmt: skip
    expected = [received, received, lost_row, lost_row, resumed, described, described, resumed]
    np.testing.assert_array_equal(x, np.stack(expected))


def test_losses_have_the_rates_and_bursts_asked_for(rng):
    plain = PLCSettings(min_loss=0.2, max_loss=0.2, max_burst_packets=1.0001, drop=0.0, restore=0.0, frames=2000)
    lost = draw_losses(rng, plain, 20)
    assert lost.shape == (20, 2000)
    assert abs(lost.mean() - 0.2) < 0.01
    changes = np.diff(lost[0].astype(int)).nonzero()[0]
    assert (np.diff(changes) % 2 == 0).all()  # whole packets
    assert len({int(np.diff(row.astype(int)).nonzero()[0][0]) % 2 for row in lost}) == 2  # at either phase
    dropped = draw_losses(rng, PLCSettings(min_loss=1e-9, max_loss=1e-9, drop=0.02, frames=2000), 20)
    assert abs(dropped.mean() - 0.02) < 0.003
    bursty = draw_losses(rng, PLCSettings(frames=2000), 50).astype(int)
    bursts = 10 * bursty.sum() / (np.diff(bursty) == 1).sum()
    assert 30 < bursts < 200
    assert np.std(bursty.mean(1)) > 0.08


def test_loss_by_hand():
    true = np.zeros((1, 2, 20), np.float32)
    true[0, 0, 19] = 0.1  # voiced by 0.4
    predicted = true.copy()
    predicted[0, 0, 0] += np.sqrt(18)  # every band up by 1
    predicted[0, 0, 18] += 0.7
    predicted[0, 0, 19] -= 0.5
    predicted[0, 1] += 100  # not lost: does not count
    weight = np.array([[2.0, 0.0]], np.float32)
    loss, terms = prediction_loss(predicted, true, weight, 1.0)
    expected = {
        "feature": (np.sqrt(18) + 0.7 + 0.5) / 20,
        "correlation": 0.1 * 0.5,
        "band": 1.0,
        "band_excess": 0.4,
        "pitch": 0.7 + 8 * 0.4,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-5)
    below, _ = prediction_loss(true - (predicted - true), true, weight, 1.0)
    np.testing.assert_allclose(below, sum(expected.values()) - 0.4 - 0.05, rtol=1e-5)


def test_weights_make_the_mean_one_over_lost_frames(rng):
    batch = PLCTask(NoiseCorpus(), NoiseCorpus(), TINY).batch(rng)
    assert batch["features"].shape == (8, 40, 20)
    assert batch["burg"].shape == (8, 40, 36)
    np.testing.assert_allclose(np.mean(batch["weight"]), 1.0, rtol=1e-5)
    assert ((batch["weight"] > 0) == batch["lost"]).all()
    # Two lost frames in a row: the second counts for less, by the reach.
    first, second = batch["weight"][:, :-1], batch["weight"][:, 1:]
    both = (first > 0) & (second > 0)
    assert both.any()
    np.testing.assert_allclose((second / np.where(both, first, 1))[both], np.exp(-1 / TINY.reach), rtol=1e-4)
    assert batch["burg_known"].mean() > 0.8


def test_two_training_steps_help():
    task = PLCTask(NoiseCorpus(), NoiseCorpus(), TINY)
    parameters, optimizer = task.init(0), task.optimizer(100)
    before = task.validate(parameters)
    opt_state = optimizer.init(parameters)
    batch = task.batch(np.random.default_rng(0))
    gradient = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    losses = []
    for step in range(3):
        (loss, _), g = gradient(parameters, batch, jax.random.key(0), step)
        update, opt_state = optimizer.update(g, opt_state, parameters)
        parameters = optax.apply_updates(parameters, update)
        losses.append(float(loss))
    assert losses[2] < losses[0]
    after = task.validate(parameters)
    assert after["loss"] < before["loss"]
    assert after["hold_loss"] == before["hold_loss"]
    assert all(np.isfinite(v) for v in after.values())


def test_held_rows_are_perfect_on_a_constant_signal_once_one_was_received(rng):
    batch = {
        "features": np.repeat(rng.normal(size=(2, 1, 20)), 8, axis=1).astype(np.float32),
        "lost": np.array([[0, 1, 1, 0, 1, 0, 0, 1], [1, 1, 0, 0, 1, 1, 1, 1]], bool),
    }
    after_first = batch["lost"].astype(np.float32) * np.array([[1.0], [0.0]])
    assert hold_objective(batch | {"weight": after_first}, TINY)[0] == 0
    before_first = batch["lost"] * np.float32([[0], [1]]) * (np.arange(8) < 2)
    _, terms = hold_objective(batch | {"weight": before_first}, TINY)
    error = np.abs(np.asarray(SILENCE) - batch["features"][1, 0]).mean()
    np.testing.assert_allclose(terms["feature"], error * 2 / 16, rtol=1e-4)


def test_published_sizes():
    model = Predictor(PredictorConfig(), rngs=nnx.Rngs(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert count == 57 * 128 + 128 + 2 * 3 * 192 * 2 + 3 * 192 * (128 + 3 * 192) + 192 * 20 + 20
    assert counting_concealer().conceal_rows == plc.SPOKEN_ROWS == 3
    assert counting_concealer(AHEAD).conceal_rows == 4
