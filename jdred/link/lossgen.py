"""A small network that draws bursty losses, packet by packet: the likelihood of the next one given all before.

Architecture as in libopus's generator (dense 8, GRU 16, GRU 32; 6105 weights). Ours has seen synthetic losses only,
mixtures of Gilbert-Elliott chains (``training.lossgen``), no network's: it knows what those have in common, and that a
given share of loss may come in many ways.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key, ScalarLike, UInt8

from jdred import weights
from jdred.config import LossGeneratorConfig
from jdred.layers import GRU, Dense

WARM_UP = 1000
"""Draws that are thrown away, until the state has forgotten where it began."""
SHIPPED = "lossgen"


class LossState(NamedTuple):
    """After the newest packet."""

    first: Float[Array, "... 16"]
    second: Float[Array, "... 32"]


class LossInput(NamedTuple):
    """One packet."""

    before: Float[Array, "..."]
    """1 where the packet before this one was lost, else 0."""
    loss: Float[Array, "..."]
    """The share of packets that is to be lost, 0 .. 1."""


class LossGenerator(nnx.Module):
    """Streaming part: logits of the next loss."""

    def __init__(self, config: LossGeneratorConfig, *, rngs: nnx.Rngs):
        self.input = Dense(2, config.dense, rngs=rngs)
        self.first = GRU(config.dense, config.first_gru, rngs=rngs)
        self.second = GRU(config.first_gru, config.second_gru, rngs=rngs)
        self.output = Dense(config.second_gru, 1, rngs=rngs)

    def init_state(self) -> LossState:
        return LossState(self.first.init_state(), self.second.init_state())

    def step(self, state: LossState, x: LossInput) -> tuple[LossState, Float[Array, "..."]]:
        """One packet further: the logit of its loss."""
        first, y = self.first.step(state.first, self._input(x))
        second, y = self.second.step(state.second, y)
        return LossState(first, second), self.output(y)[..., 0]

    def scan(self, state: LossState, xs: LossInput) -> tuple[LossState, Float[Array, "time ..."]]:
        """``step`` over a leading time axis, layer by layer."""
        first, y = self.first.scan(state.first, self._input(xs))
        second, y = self.second.scan(state.second, y)
        return LossState(first, second), self.output(y)[..., 0]

    def _input(self, x: LossInput) -> Array:
        return jnp.tanh(self.input(jnp.stack([x.before, x.loss], axis=-1)))


def generate(
    generator: LossGenerator, key: Key[Array, ""], packets: int, loss: ScalarLike, warm_up: int = WARM_UP
) -> Bool[Array, "packets"]:
    """Draw a trace in which about the share ``loss`` (0 .. 1) of packets is lost. Pure; the key is consumed."""
    uniforms = jax.random.uniform(key, (warm_up + packets,))
    loss = jnp.asarray(loss, jnp.float32)

    def draw(carry: tuple[LossState, Array], uniform: Array) -> tuple[tuple[LossState, Array], Array]:
        state, before = carry
        state, logit = generator.step(state, LossInput(before, loss))
        lost = uniform < jax.nn.sigmoid(logit)
        return (state, lost.astype(jnp.float32)), lost

    return jax.lax.scan(draw, (generator.init_state(), jnp.zeros(())), uniforms)[1][warm_up:]


_generate = jax.jit(generate, static_argnums=(2, 4))


def draw_learned_trace(
    packets: int, loss: float, seed: int = 0, generator: LossGenerator | None = None
) -> UInt8[np.ndarray, "packets"]:
    """A trace from a seed by the shipped generator, or by another.

    Raises:
      ValueError: ``loss`` is not within 0 .. 0.6, what the generator has seen, or ``packets`` is not positive.
    """
    if packets < 1 or not 0 <= loss <= LossGeneratorConfig.max_loss:
        most = LossGeneratorConfig.max_loss
        raise ValueError(f"expected packets >= 1 and a loss of 0 .. {most}, got {packets} and {loss}")
    drawn = _generate(load() if generator is None else generator, jax.random.key(seed), packets, loss)
    return np.asarray(drawn, np.uint8)


def load(name: str = SHIPPED) -> LossGenerator:
    """A trained generator, by shipped name or path. Raises ``CheckpointError``."""
    arrays, config = weights.read(name)
    if config.get("kind") != SHIPPED:
        raise weights.CheckpointError(f"{name}: expected weights of kind {SHIPPED!r}, found {config.get('kind')!r}")
    template = weights.abstract(lambda: LossGenerator(LossGeneratorConfig(**config["model"]), rngs=nnx.Rngs(0)))
    weights.check(template, arrays, name)
    return weights.unflatten(template, {key: jnp.asarray(value) for key, value in arrays.items()})
