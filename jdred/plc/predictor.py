"""The feature predictor of packet loss concealment: what the next 10 ms would have sounded like.

A dense layer and two GRUs at 100 Hz (Valin et al., "Real-time packet loss concealment with mixed generative and
predictive model", Interspeech 2022; default widths of libopus 1.6). There is no feedback of its own output: while
nothing arrives the input is zero and the GRUs carry on.

The input is 36 Burg features, 20 features and a flag, and takes one of four forms:

=======================  =====  ========  ====
situation                Burg   features  flag
=======================  =====  ========  ====
received                 valid  valid     +1
first after a loss       valid  0         +1
described (DRED)         0      valid     -1
lost                     0      0         0
=======================  =====  ========  ====
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdred.config import NUM_BURG, NUM_FEATURES, PredictorConfig
from jdred.layers import GRU, Dense

NUM_INPUTS = NUM_BURG + NUM_FEATURES + 1


def _join(burg: Array, features: Array, flag: float) -> Array:
    return jnp.concatenate([burg, features, jnp.full_like(features[..., :1], flag)], axis=-1)


def received(burg: Float[Array, "... 36"], features: Float[Array, "... 20"]) -> Float[Array, "... 57"]:
    """Input of a frame that arrived."""
    return _join(burg, features, 1.0)


def resumed(burg: Float[Array, "... 36"]) -> Float[Array, "... 57"]:
    """Input of the first frame after a loss: the window of its features still reaches into the lost frame."""
    return _join(burg, jnp.zeros(burg.shape[:-1] + (NUM_FEATURES,)), 1.0)


def described(features: Float[Array, "... 20"]) -> Float[Array, "... 57"]:
    """Input of a frame whose features are known but not its samples."""
    return _join(jnp.zeros(features.shape[:-1] + (NUM_BURG,)), features, -1.0)


def lost(batch_shape: tuple[int, ...] = ()) -> Float[Array, "... 57"]:
    """Input of a frame of which nothing is known."""
    return jnp.zeros((*batch_shape, NUM_INPUTS))


class PredictorState(NamedTuple):
    """Outputs of the two GRUs."""

    first: Float[Array, "... gru"]
    second: Float[Array, "... gru"]


class Predictor(nnx.Module):
    """Streaming part: input row of 57 to the 20 features of the same frame."""

    def __init__(self, config: PredictorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.dense_in = Dense(NUM_INPUTS, config.width, rngs=rngs)
        self.first = GRU(config.width, config.gru, rngs=rngs)
        self.second = GRU(config.gru, config.gru, rngs=rngs)
        self.dense_out = Dense(config.gru, NUM_FEATURES, rngs=rngs)

    def init_state(self) -> PredictorState:
        return PredictorState(self.first.init_state(), self.second.init_state())

    def step(self, state: PredictorState, x: Float[Array, "... 57"]) -> tuple[PredictorState, Float[Array, "... 20"]]:
        """One frame in, its features out (those of a lost frame are the prediction)."""
        first, y = self.first.step(state.first, jnp.tanh(self.dense_in(x)))
        second, y = self.second.step(state.second, y)
        return PredictorState(first, second), self.dense_out(y)

    def scan(
        self, state: PredictorState, xs: Float[Array, "time ... 57"]
    ) -> tuple[PredictorState, Float[Array, "time ... 20"]]:
        """A whole sequence; all products without memory are done at once."""
        first, ys = self.first.scan(state.first, jnp.tanh(self.dense_in(xs)))
        second, ys = self.second.scan(state.second, ys)
        return PredictorState(first, second), self.dense_out(ys)
