"""Training FARGAN on what another FARGAN says.

The teacher speaks freely. A student of its sizes is put where the teacher stands before each 2.5 ms step, with its
memory and its GRU states; it has to say the teacher's next 40 samples and arrive at the teacher's next states. All
steps of a batch are then independent, a few large products without back-propagation through time. A student of other
sizes keeps GRU states of its own; it hears what the teacher has said so far, and has to say what comes next.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdred.training.fargan import (
    FORCED_SAMPLES,
    FARGANSettings,
    FARGANTask,
    beginning,
    load_fargan,
    spectral_error,
)
from jdred.vocoder.fargan import FARGAN, SUBFRAME_SAMPLES, SubframeInput, SubframeState, by_subframe


class Followed(NamedTuple):
    """The teacher's way through a batch, sub-frames first."""

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
    return Followed(before, after, jnp.exp(teacher.subframe.gain(xs.condition)), said)


def imitation(student: FARGAN, teacher: FARGAN, batch: dict[str, Array], quiet_floor: float):
    """Errors of the student's steps behind the teacher: their sum, and each as a figure.

    ``samples``: relative to the teacher's gain. ``spectral``: of all that was said, strung together. ``states``:
    relative to the size of the teacher's; none for a student of other sizes.
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
    figures["samples"] = jnp.mean(jnp.abs(said - way.said) / (way.gain + 1e-4))
    figures["spectral"] = spectral_error(strung(way.said), strung(said), quiet_floor)
    return sum(figures.values()), figures


def _step_from(student: FARGAN, before: SubframeState, first_inputs: Array, xs: SubframeInput):
    """One step from each of the teacher's states; the inputs that a step remembers are the student's own."""
    inputs = student.subframe.hear(before.memory, xs).inputs
    inputs = jnp.concatenate([first_inputs[None], inputs[:-1]])
    return student.subframe.step(SubframeState(before.memory, inputs, before.h), xs)


def strung(said: Float[Array, "steps batch 40"]) -> Float[Array, "batch samples"]:
    """Sub-frames as one signal."""
    return jnp.moveaxis(said, 0, 1).reshape(said.shape[1], -1)


def relative_error(true: Float[Array, "..."], own: Float[Array, "..."]) -> Float[Array, ""]:
    """Root mean square of the difference, relative to that of the truth."""
    return jnp.sqrt(jnp.mean((own - true) ** 2) / (jnp.mean(true**2) + 1e-9) + 1e-9)


@dataclass(frozen=True)
class StudentSettings(FARGANSettings):
    teacher: str = ""
    """Weights of the FARGAN to learn from: a shipped name or a path."""
    batch: int = 64


@dataclass(frozen=True)
class StudentTask(FARGANTask):
    """``jdred.training.Task`` of a FARGAN that learns from another one."""

    settings: StudentSettings = field(default_factory=StudentSettings)
    name: str = "student"

    @cached_property
    def teacher(self) -> FARGAN:
        """The one to learn from."""
        return load_fargan(self.settings.teacher)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "kind": "fargan", "task": self.name}

    def loss(self, parameters: FARGAN, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        return imitation(parameters, self.teacher, batch, self.settings.quiet_floor)

    def validate(self, parameters: FARGAN) -> dict[str, float]:
        """Errors of single steps; and ``free``, the spectral error of free speech against the true one."""
        rng = np.random.default_rng(1)
        batches = [
            self._draw(self.validation, rng, self.settings.rows) for _ in range(self.settings.validation_batches)
        ]
        figures = [_compiled_imitation(parameters, self.teacher, batch, self.settings.quiet_floor) for batch in batches]
        means = jax.tree.map(lambda *values: float(np.mean(values)), *[{"loss": loss, **f} for loss, f in figures])
        return {**means, "free": super().validate(parameters)["spectral"]}


_compiled_imitation = jax.jit(imitation, static_argnums=3)
