"""Training FARGAN on what another FARGAN says: the student stands where the teacher stood, and takes one step.

The teacher speaks freely. Before each 2.5 ms step its memory and its GRU states are given to the student, who has to
say the teacher's next 40 samples and arrive at the teacher's next states. All steps of a batch are independent, so the
student learns in a few large products, without back-propagation through time.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdred.models import load_vocoder
from jdred.training.fargan import FORCED_SAMPLES, FARGANSettings, FARGANTask, beginning, spectral_error
from jdred.vocoder.fargan import FARGAN, SubframeState, by_subframe


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
    """Errors of the student's steps from where the teacher stands: their sum, and each as a figure.

    ``samples``: relative to the teacher's gain. ``spectral``: of all that was said, strung together. ``states``:
    relative to the size of the teacher's.
    """
    way = jax.lax.stop_gradient(follow(teacher, batch))
    _, state, condition, periods = beginning(student, batch)
    xs = by_subframe(condition, periods, jnp.zeros((*condition.shape[1:2], 0)))
    inputs = student.subframe.hear(way.before.memory, xs).inputs
    inputs = jnp.concatenate([state.inputs[None], inputs[:-1]])
    after, said = student.subframe.step(SubframeState(way.before.memory, inputs, way.before.h), xs)
    figures = {
        "samples": jnp.mean(jnp.abs(said - way.said) / (way.gain + 1e-4)),
        "spectral": spectral_error(strung(way.said), strung(said), quiet_floor),
        "states": sum(map(relative_error, way.after, after.h)) / len(way.after),
    }
    return sum(figures.values()), figures


def strung(said: Float[Array, "steps batch 40"]) -> Float[Array, "batch samples"]:
    """Sub-frames as one signal."""
    return jnp.moveaxis(said, 0, 1).reshape(said.shape[1], -1)


def relative_error(true: Float[Array, "..."], own: Float[Array, "..."]) -> Float[Array, ""]:
    """Root mean square of the difference, relative to that of the truth."""
    return jnp.sqrt(jnp.mean((own - true) ** 2) / (jnp.mean(true**2) + 1e-9) + 1e-9)


@dataclass(frozen=True)
class StudentSettings(FARGANSettings):
    teacher: str = ""
    """Weights of the FARGAN to learn from, of the same widths: a shipped name or a path."""
    batch: int = 64


@dataclass(frozen=True)
class StudentTask(FARGANTask):
    """``jdred.training.Task`` of a FARGAN that learns from another one."""

    settings: StudentSettings = field(default_factory=StudentSettings)
    name: str = "student"

    @cached_property
    def teacher(self) -> FARGAN:
        """
        Raises:
          CheckpointError: no such weights, or not a FARGAN.
          ValueError: its widths are not the student's.
        """
        with jax.ensure_compile_time_eval():  # first asked for inside a trace, kept beyond it
            teacher = load_vocoder(self.settings.teacher)
        if teacher.config != self.settings.model:
            raise ValueError(
                f"expected a teacher of the student's sizes, {self.settings.model}, found {teacher.config}"
            )
        return teacher

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
