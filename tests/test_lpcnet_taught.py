"""LPCNet that learns from what a FARGAN says: the same places in time, the same scale, and a task that trains."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import TINY_FARGAN, write_fargan, write_prepared
from flax import nnx

from jdred.config import FRAME_SAMPLES, LPC_ORDER, LPCNetConfig
from jdred.dsp import INT16_SCALE
from jdred.training.corpus import Prepared
from jdred.training.fargan import PAST_SAMPLES, TRUE_SAMPLES, speak
from jdred.training.lpcnet import LPCNetSettings, LPCNetTask, align, spoken_by
from jdred.vocoder.fargan import FARGAN
from jdred.vocoder.frame_network import CONTEXT_ROWS

ROWS = 2
SMALL = LPCNetConfig(gru_a=16, gru_b=8, condition=8, embedding=4, pitch_embedding=4, bunch=4, long_term=True)


@pytest.fixture(scope="module")
def teacher():
    return FARGAN(TINY_FARGAN, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def task(teacher, tmp_path_factory):
    """On 3 sequences of noise."""
    folder = tmp_path_factory.mktemp("taught")
    write_prepared(folder, seed=0)
    name = write_fargan(folder / "teacher.npz", teacher)
    settings = LPCNetSettings(model=SMALL, teacher=name, batch=2, rows=ROWS, validation_batches=1)
    return LPCNetTask(Prepared(folder), Prepared(folder), settings)


def test_the_rows_to_learn_are_those_that_the_teacher_says(task, teacher):
    batch = task.batch(np.random.default_rng(0))
    got = jax.jit(spoken_by)(teacher, batch)
    assert got["features"].shape == (2, CONTEXT_ROWS + ROWS, 20)
    assert got["pcm"].shape == (2, (CONTEXT_ROWS + ROWS) * FRAME_SAMPLES)
    # Up to the middle of row 3 it was forced upon the teacher, and from there on is the teacher's own.
    true = batch["pcm"][:, PAST_SAMPLES:]
    own = 3 * FRAME_SAMPLES
    np.testing.assert_allclose(got["pcm"][:, :own], true[:, :own], atol=0.05)
    assert np.abs(got["pcm"][:, own : own + FRAME_SAMPLES] - true[:, own : own + FRAME_SAMPLES]).max() > 100
    said = INT16_SCALE * speak(teacher, batch)[1]
    spoken, past = align(got["pcm"])
    begin = said.shape[1] - ROWS * FRAME_SAMPLES
    np.testing.assert_allclose(spoken.T, said[:, begin:], atol=0.05)
    np.testing.assert_allclose(past.T, said[:, begin - LPC_ORDER : begin], atol=0.05)
    assert begin >= TRUE_SAMPLES


def test_without_a_teacher_recorded_speech_is_learned(task):
    alone = replace(task, settings=replace(task.settings, teacher=""))
    batch = alone.batch(np.random.default_rng(0))
    assert batch["pcm"].shape == (2, (CONTEXT_ROWS + ROWS) * FRAME_SAMPLES)
    assert batch["features"].shape == (2, CONTEXT_ROWS + ROWS, 20)
    assert spoken_by(alone.teacher, batch) is batch


def test_the_task_learns_from_its_teacher(task):
    parameters, batch = jax.jit(lambda: task.init(0))(), task.batch(np.random.default_rng(0))
    loss = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    (value, figures), gradient = loss(parameters, batch, jax.random.key(0), None)
    assert np.isfinite(value)
    assert np.abs(gradient.gru_a.recurrent[...]).max() > 0
    figures = task.validate(parameters)
    assert sorted(figures) == ["clean", "linear", "loss"]
    assert all(map(np.isfinite, figures.values()))
