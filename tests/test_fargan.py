"""FARGAN: the pitch prediction, priming, the streaming voice against the one that trains, and the spectral error."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_FARGAN, pulses, write_fargan
from flax import nnx

from jdred import streaming
from jdred.config import FRAME_SAMPLES, PREEMPHASIS, FARGANConfig
from jdred.packed import Packed, pack, packed
from jdred.training.fargan import FARGANSettings, FARGANTask, roots, speak, spectral_error
from jdred.training.student import (
    StudentSettings,
    StudentTask,
    correction,
    follow,
    imitation,
    opening_mismatch,
    strung,
)
from jdred.vocoder import VocoderInput
from jdred.vocoder.fargan import FARGAN, FORCED_SUBFRAMES, MEMORY_SAMPLES, pitch_prediction

ROWS = 5
KNOWN = FRAME_SAMPLES * FARGAN.prime_rows + FRAME_SAMPLES // 2


@pytest.fixture(scope="module")
def model():
    return FARGAN(TINY_FARGAN, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    return pulses(ROWS)


@pytest.mark.parametrize("period", [32, 40, 44, 100, 255])
def test_pitch_prediction_repeats_the_last_period(period):
    memory = np.arange(MEMORY_SAMPLES, dtype=np.float32)
    wanted = [memory[max(0, index if index < 256 else index - period)] for index in range(254 - period, 298 - period)]
    np.testing.assert_array_equal(pitch_prediction(memory, jnp.asarray(period)), wanted)


def test_the_default_network_has_the_size_of_the_published_one():
    count = sum(a.size for a in jax.tree.leaves(nnx.eval_shape(lambda: FARGAN(FARGANConfig(), rngs=nnx.Rngs(0)))))
    assert count == 816_597


def test_the_streaming_voice_says_what_training_hears(model, batch):
    """Priming on the known past and then speaking row by row is the twin that is trained, de-emphasised."""
    truth, said = jax.jit(speak)(model, batch)
    pcm = batch["pcm"].astype(np.float32) / 32768
    features = jnp.swapaxes(batch["features"], 0, 1)
    rows = FARGAN.prime_rows + 1 + FARGAN.lookahead_rows
    state, half = jax.jit(FARGAN.prime)(model, features[:rows], pcm[:, :KNOWN], None)
    xs = VocoderInput(features[rows:], jnp.zeros((ROWS - 2, 2, 0)))
    _, spoken = jax.jit(streaming.scan)(model, state, xs)
    free = jnp.concatenate([half, jnp.moveaxis(spoken, 0, 1).reshape(2, -1)], axis=1)
    begin = MEMORY_SAMPLES + FORCED_SUBFRAMES * 40
    emphasised = free - PREEMPHASIS * jnp.concatenate([pcm[:, KNOWN - 1 : KNOWN], free[:, :-1]], axis=1)
    assert free.shape == (2, said.shape[1] - begin)
    np.testing.assert_allclose(emphasised, said[:, begin:], atol=1e-5)
    np.testing.assert_array_equal(said[:, :begin], truth[:, :begin])
    assert np.abs(said[:, begin:]).max() > 0.01
    whole = np.diff(pcm, prepend=0) + (1 - PREEMPHASIS) * np.pad(pcm, [(0, 0), (1, 0)])[:, :-1]
    np.testing.assert_allclose(truth, whole[:, 2 * FRAME_SAMPLES - MEMORY_SAMPLES :][:, : truth.shape[1]], atol=1e-6)


def test_a_stream_alone_says_what_it_says_in_a_batch(model, batch):
    pcm = batch["pcm"].astype(np.float32) / 32768
    features = batch["features"][:, :5]
    prime = lambda f, p: FARGAN.prime(model, f, p)  # noqa: E731
    together = jax.jit(prime)(jnp.swapaxes(features, 0, 1), pcm[:, :KNOWN])
    mapped = jax.jit(jax.vmap(prime))(features, pcm[:, :KNOWN])
    alone = jax.jit(prime)(features[1], pcm[1, :KNOWN])
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), together, mapped)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-5), together, alone)


def test_gradients_flow_through_everything_that_was_said(model, batch):
    task = FARGANTask(None, None, FARGANSettings(model=TINY_FARGAN))
    (loss, figures), gradient = jax.jit(lambda m: jax.value_and_grad(task.loss, has_aux=True)(m, batch, None, None))(
        model
    )
    assert np.isclose(loss, figures["spectral"] + task.settings.continuity * figures["mismatch"])
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


def test_roots_of_magnitudes_are_those_of_a_plain_spectrum():
    signal = np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32)
    got = roots(signal, 80)
    padded = np.pad(signal, [(0, 0), (40, 40)], mode="reflect")
    window = np.sin(np.pi * np.arange(80) / 80) ** 2
    for frame in (0, 7, got.shape[1] - 1):
        spectrum = np.fft.rfft(window * padded[:, 20 * frame : 20 * frame + 80])
        np.testing.assert_allclose(got[:, frame], np.sqrt(np.abs(spectrum)), rtol=1e-3, atol=1e-3)
    assert got.shape == (2, 26, 41)


def test_spectral_error_is_relative_and_spares_near_silence():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 3000)).astype(np.float32)
    assert spectral_error(truth, truth, 0.1) == 0
    # Square roots of magnitudes: a signal 4 times as loud is wrong by its own size.
    np.testing.assert_allclose(spectral_error(truth, 4 * truth, 0.1), 1, rtol=0.02)
    np.testing.assert_allclose(spectral_error(0.3 * truth, 1.2 * truth, 0.1), 1, rtol=0.02)
    quiet = truth * np.float32([[1], [1e-8]])
    noisy = truth * np.float32([[1], [1e-4]])
    assert spectral_error(quiet, noisy, 0.1) < 0.15 < spectral_error(quiet, noisy, 0.0)


def test_a_student_that_is_its_teacher_makes_no_error_and_another_one_learns(model, batch):
    other = FARGAN(TINY_FARGAN, rngs=nnx.Rngs(1))
    compiled = jax.jit(lambda student: jax.value_and_grad(student_error, has_aux=True)(student))

    def student_error(student):
        return imitation(student, model, batch, 0.1)

    (same, _), _ = compiled(model)
    (error, figures), gradient = compiled(other)
    assert same < 1e-3 < 0.1 < error
    assert np.isclose(error, sum(figures.values()))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    (better, _), _ = compiled(jax.tree.map(lambda a, g: a - 1e-3 * g / jnp.linalg.norm(g), other, gradient))
    assert better < error


def test_the_way_of_the_teacher_is_what_it_says_freely(model, batch):
    way = follow(model, batch)
    _, said = speak(model, batch)
    free = said[:, MEMORY_SAMPLES + FORCED_SUBFRAMES * 40 :]
    np.testing.assert_allclose(strung(way.said)[:, FORCED_SUBFRAMES * 40 :], free, atol=1e-5)
    for before, after in zip(way.before.h, way.after, strict=True):
        np.testing.assert_array_equal(before[1:], after[:-1])


def test_a_student_of_other_sizes_hears_what_the_teacher_said(model, batch):
    half = FARGAN(replace(TINY_FARGAN, grus=(4, 4, 4)), rngs=nnx.Rngs(1))
    compiled = jax.jit(lambda student: jax.value_and_grad(imitation, has_aux=True)(student, model, batch, 0.1))
    (error, figures), gradient = compiled(half)
    assert sorted(figures) == ["samples", "spectral"]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    (better, _), _ = compiled(jax.tree.map(lambda a, g: a - 1e-3 * g / jnp.linalg.norm(g), half, gradient))
    assert better < error


def test_a_student_that_speaks_freely_is_corrected_by_what_its_teacher_says_of_the_same_past(model, batch):
    compiled = jax.jit(lambda student: jax.value_and_grad(correction, has_aux=True)(student, model, batch, 0.1))
    (same, _), _ = compiled(model)
    assert same < 1e-3
    half = FARGAN(replace(TINY_FARGAN, grus=(4, 4, 4)), rngs=nnx.Rngs(1))
    (error, figures), gradient = compiled(half)
    assert sorted(figures) == ["samples", "spectral"]
    assert error > 0.1
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    (better, _), _ = compiled(jax.tree.map(lambda a, g: a - 1e-3 * g / jnp.linalg.norm(g), half, gradient))
    assert better < error


def test_the_opening_is_compared_with_real_speech(model, batch):
    """Were all of it forced there would be no mismatch; freely said by random weights there is."""
    mismatch, gradient = jax.jit(jax.value_and_grad(opening_mismatch))(model, batch)
    assert 0.3 < mismatch < 1.7
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    truth, said = speak(model, batch)
    begin = MEMORY_SAMPLES + FORCED_SUBFRAMES * 40
    by_hand = [
        1 - np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))
        for start in (begin, begin + 160)
        for a, b in zip(truth[:, start : start + 160], said[:, start : start + 160], strict=True)
    ]
    np.testing.assert_allclose(mismatch, np.mean(by_hand), rtol=1e-4)


def test_a_teacher_has_to_be_a_fargan(model, tmp_path):
    name = write_fargan(tmp_path / "teacher.npz", model)
    assert StudentTask(None, None, StudentSettings(teacher=name)).teacher.config == TINY_FARGAN
    with pytest.raises(ValueError, match="expected a FARGAN, found LPCNetVoice in lpcnet"):
        _ = StudentTask(None, None, StudentSettings(teacher="lpcnet")).teacher


def test_a_packed_voice_says_the_same_alone_and_exactly_the_same_in_a_batch(model, batch):
    """Alone its weights have 8 significant bits; sizes as odd as some here, and few outputs, stay as they are."""
    config = FARGANConfig(
        pitch_embedding=4, condition_dense=16, condition_conv=32, condition=20, first=48, grus=(32, 24, 16), dense=32
    )
    plain = FARGAN(config, rngs=nnx.Rngs(0))
    fast = packed(plain)
    assert plain.subframe.first.packed is None
    assert fast.subframe.gain.packed is None
    assert {"kernel", "recurrent"} == fast.subframe.grus[0].packed.keys()
    features = jnp.swapaxes(batch["features"], 0, 1)[:5]
    pcm = batch["pcm"].astype(np.float32)[:, :KNOWN] / 32768
    prime = jax.jit(FARGAN.prime)
    jax.tree.map(np.testing.assert_array_equal, prime(plain, features, pcm), prime(fast, features, pcm))
    (wanted, half), (got, fast_half) = (prime(voice, features[:, 0], pcm[0]) for voice in (plain, fast))
    for a, b in ((half, fast_half), *zip(wanted.subframe.h, got.subframe.h, strict=True)):
        assert 0 < np.linalg.norm(b - a) < 0.02 * np.linalg.norm(a)


def test_a_packed_kernel_is_the_kernel_rounded():
    for n_in in (2, 96, 160, 328):
        kernel = np.random.default_rng(0).normal(size=(n_in, 24)).astype(np.float32)
        x = np.random.default_rng(1).normal(size=n_in).astype(np.float32)
        rounded = kernel.astype(jnp.bfloat16).astype(np.float32)
        np.testing.assert_allclose(jax.jit(Packed.times)(pack(kernel), x), x @ rounded, atol=1e-4)
