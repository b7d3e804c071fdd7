"""Training FARGAN on what another FARGAN says.

The teacher speaks freely. A student of its sizes is put where the teacher stands before each 2.5 ms step, with its
memory and its GRU states; it has to say the teacher's next 40 samples and arrive at the teacher's next states. All
steps of a batch are then independent, a few large products without back-propagation through time. A student of other
sizes keeps GRU states of its own; it hears what the teacher has said so far, and has to say what comes next.

Left to itself such a student hears its own mistakes, which its teacher never made. So at last (``own_past``) it speaks
freely, its teacher hears that as if it had said so itself, and what the teacher would say next is what to learn.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdred.config import FRAME_SAMPLES
from jdred.training.fargan import (
    FORCED_SAMPLES,
    TRUE_SAMPLES,
    FARGANTask,
    SpeakingSettings,
    beginning,
    cosine,
    load_fargan,
    samples_of,
    speak,
    spectral_error,
)
from jdred.vocoder.fargan import FARGAN, SUBFRAME_SAMPLES, SubframeInput, SubframeState, by_subframe

OPENING_ROWS = 4
"""Rows (10 ms) that hold the forced beginning and 20 ms more."""


class Followed(NamedTuple):
    """The teacher's way through a batch, sub-frames first."""

    steps: SubframeInput
    """What it was told."""
    before: SubframeState
    """Where it stood before each step."""
    after: tuple[Float[Array, "steps batch width"], ...]
    """Its GRU states after the step."""
    gain: Float[Array, "steps batch 1"]
    said: Float[Array, "steps batch 40"]


def follow(teacher: FARGAN, batch: dict[str, Array]) -> Followed:
    """Let the teacher speak from the features of a batch, after the forced beginning of ``FARGAN.prime``."""
    truth, state, condition, periods = beginning(teacher, batch)
    xs = by_subframe(condition, periods, truth[:, :FORCED_SAMPLES])

    def body(state, x):
        after, said = teacher.subframe.step(state, x)
        return after, (state, after.h, said)

    _, (before, after, said) = jax.lax.scan(body, state, xs)
    return Followed(xs, before, after, jnp.exp(teacher.subframe.gain(xs.condition)), said)


def imitation(student: FARGAN, teacher: FARGAN, batch: dict[str, Array], quiet_floor: float):
    """Errors of the student's steps behind the teacher: their sum, and each as a figure.

    See ``errors``; ``states``: relative to the size of the teacher's, none for a student of other sizes.
    """
    way = jax.lax.stop_gradient(follow(teacher, batch))
    _, state, condition, periods = beginning(student, batch)
    xs = by_subframe(condition, periods, jnp.zeros((*condition.shape[1:2], 0)))
    figures = {}
    if student.config == teacher.config:
        after, said = _step_from(student, way.before, state.inputs, xs)
        figures["states"] = sum(map(relative_error, way.after, after.h)) / len(way.after)
    else:
        remembered = jnp.concatenate([way.before.memory[1:, :, -SUBFRAME_SAMPLES:], way.said[-1:]])
        xs = xs._replace(truth=remembered, known=jnp.ones(xs.known.shape, bool))
        _, said = jax.lax.scan(student.subframe.step, state, xs)
    figures |= errors(way.said, said, way.gain, quiet_floor)
    return sum(figures.values()), figures


def correction(student: FARGAN, teacher: FARGAN, batch: dict[str, Array], quiet_floor: float):
    """``imitation`` of a student that speaks freely; its gradient goes through all that it said."""
    truth, state, *read = beginning(student, batch)
    xs = by_subframe(*read, truth[:, :FORCED_SAMPLES])
    _, said = jax.lax.scan(student.subframe.step, state, xs)
    heard = jax.lax.stop_gradient(jnp.where(xs.known[..., None], xs.truth, said))
    better, gain = after_hearing(teacher, batch, strung(heard))
    figures = errors(better, said, gain, quiet_floor)
    return sum(figures.values()), figures


def after_hearing(
    teacher: FARGAN, batch: dict[str, Array], heard: Float[Array, "batch samples"]
) -> tuple[Float[Array, "steps batch 40"], Float[Array, "steps batch 1"]]:
    """What a teacher would say next, all steps before being what it heard as if it had said so, and its gains.

    Args:
      heard: pre-emphasised, from where ``training.fargan.beginning`` begins.
    """
    _, state, *read = beginning(teacher, batch)
    xs = by_subframe(*read, heard)
    _, better = jax.lax.scan(teacher.subframe.step, state, xs)
    return better, jnp.exp(teacher.subframe.gain(xs.condition))


def errors(
    better: Float[Array, "steps batch 40"],
    said: Float[Array, "steps batch 40"],
    gain: Float[Array, "steps batch 1"],
    quiet_floor: float,
) -> dict[str, Float[Array, ""]]:
    """Of what a student said: ``samples``, relative to its teacher's gain, and ``spectral``, of all strung together."""
    samples = jnp.mean(jnp.abs(said - better) / (gain + 1e-4))
    return {"samples": samples, "spectral": spectral_error(strung(better), strung(said), quiet_floor)}


def _step_from(student: FARGAN, before: SubframeState, first_inputs: Array, xs: SubframeInput):
    """One step from each of the teacher's states; the inputs that a step remembers are the student's own."""
    inputs = student.subframe.hear(before.memory, xs).inputs
    inputs = jnp.concatenate([first_inputs[None], inputs[:-1]])
    return student.subframe.step(SubframeState(before.memory, inputs, before.h), xs)


def opening_mismatch(student: FARGAN, batch: dict[str, Array]) -> Float[Array, ""]:
    """How far the first 20 ms that are spoken freely, by 10 ms, are from the true ones in their wave: 0 .. 2."""
    rows = FARGAN.prime_rows + OPENING_ROWS
    pcm = batch["pcm"][:, : samples_of(rows)]
    truth, said = speak(student, {"features": batch["features"][:, :rows], "pcm": pcm})
    waves = (x[:, TRUE_SAMPLES : TRUE_SAMPLES + 2 * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES) for x in (truth, said))
    return jnp.mean(1 - cosine(*waves))


def strung(said: Float[Array, "steps batch 40"]) -> Float[Array, "batch samples"]:
    """Sub-frames as one signal."""
    return jnp.moveaxis(said, 0, 1).reshape(said.shape[1], -1)


def relative_error(true: Float[Array, "..."], own: Float[Array, "..."]) -> Float[Array, ""]:
    """Root mean square of the difference, relative to that of the truth."""
    return jnp.sqrt(jnp.mean((own - true) ** 2) / (jnp.mean(true**2) + 1e-9) + 1e-9)


@dataclass(frozen=True)
class StudentSettings(SpeakingSettings):
    teacher: str = ""
    """Weights of the FARGAN to learn from: a shipped name or a path."""
    batch: int = 64
    own_past: bool = False
    """By ``correction``, in place of ``imitation``."""
    opening: float = 0.0
    """Weight of ``opening_mismatch``: beside its teacher it then learns from speech."""


@dataclass(frozen=True)
class StudentTask(FARGANTask):
    """``jdred.training.Task`` of a FARGAN that learns from another one."""

    settings: StudentSettings = field(default_factory=StudentSettings)
    name: str = "student"

    @cached_property
    def teacher(self) -> FARGAN:
        """The one to learn from."""
        return load_fargan(self.settings.teacher)

    def loss(self, parameters: FARGAN, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        settings = self.settings
        errors_behind = correction if settings.own_past else imitation
        loss, figures = errors_behind(parameters, self.teacher, batch, settings.quiet_floor)
        if settings.opening:
            figures["opening"] = opening_mismatch(parameters, batch)
            loss += settings.opening * figures["opening"]
        return loss, figures

    def validate(self, parameters: FARGAN) -> dict[str, float]:
        """Errors behind the teacher, of single steps or (``own_past``) of free speech; ``opening``; and ``free``, the
        spectral error of free speech against the true one.
        """
        rng = np.random.default_rng(1)
        batches = [
            self._draw(self.validation, rng, self.settings.rows) for _ in range(self.settings.validation_batches)
        ]
        errors_behind = _compiled_correction if self.settings.own_past else _compiled_imitation
        figures = [errors_behind(parameters, self.teacher, batch, self.settings.quiet_floor) for batch in batches]
        means = jax.tree.map(lambda *values: float(np.mean(values)), *[{"loss": loss, **f} for loss, f in figures])
        opening = float(np.mean([_compiled_opening(parameters, batch) for batch in batches]))
        free = self.heard(parameters)["spectral"]
        return {**means, "loss": means["loss"] + self.settings.opening * opening, "opening": opening, "free": free}


_compiled_imitation = jax.jit(imitation, static_argnums=3)
_compiled_correction = jax.jit(correction, static_argnums=3)
_compiled_opening = jax.jit(opening_mismatch)
