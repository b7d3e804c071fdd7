"""The frame-rate network of LPCNet: what the sample-rate network is told of each 10 ms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jdred.config import MAX_PERIOD, NUM_BANDS, NUM_FEATURES, LPCNetConfig
from jdred.dsp.pitch import period_from_feature
from jdred.layers import CausalConv, Dense

KERNEL_SIZE = 3
"""Of both convolutions."""
CONTEXT_ROWS = 2 * (KERNEL_SIZE - 1)
"""Rows before the one spoken that the frame-rate network sees."""


class FrameState(NamedTuple):
    """Past inputs of the two convolutions."""

    first: Float[Array, "... 2 inputs"]
    second: Float[Array, "... 2 condition"]


class FrameNetwork(nnx.Module):
    """Feature rows to conditioning, once per 10 ms, causal."""

    def __init__(self, config: LPCNetConfig, *, rngs: nnx.Rngs):
        width = config.condition
        self.pitch = nnx.Param(0.1 * jax.random.normal(rngs.params(), (MAX_PERIOD, config.pitch_embedding)))
        self.first = CausalConv(NUM_FEATURES + config.pitch_embedding, width, kernel_size=KERNEL_SIZE, rngs=rngs)
        self.second = CausalConv(width, width, kernel_size=KERNEL_SIZE, rngs=rngs)
        self.dense = nnx.List([Dense(width, width, rngs=rngs) for _ in range(2)])

    def init_state(self) -> FrameState:
        return FrameState(self.first.init_state(), self.second.init_state())

    def _inputs(self, features: Array) -> Array:
        pitch = self.pitch[...][period_from_feature(features[..., NUM_BANDS])]
        return jnp.concatenate([features, pitch], axis=-1)

    def _finish(self, x: Array) -> Array:
        for layer in self.dense:
            x = jnp.tanh(layer(x))
        return x

    def step(self, state: FrameState, features: Float[Array, "... 20"]):
        first, x = self.first.step(state.first, self._inputs(features))
        second, x = self.second.step(state.second, jnp.tanh(x))
        return FrameState(first, second), self._finish(jnp.tanh(x))

    def scan(
        self,
        state: FrameState,
        features: Float[Array, "rows ... 20"],
        since_reset: Int[Array, "rows ..."] | None = None,
    ):
        """All rows at once; ``since_reset`` as for ``CausalConv.scan``."""
        first, x = self.first.scan(state.first, self._inputs(features), since_reset)
        second, x = self.second.scan(state.second, jnp.tanh(x), since_reset)
        return FrameState(first, second), self._finish(jnp.tanh(x))
