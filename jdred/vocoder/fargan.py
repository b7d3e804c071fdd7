"""FARGAN: 2.5 ms of speech a step, from conditioning, the last samples, and the samples one pitch period ago.

A conditioning network turns feature rows into one vector a sub-frame. A sub-frame network says the next 40 samples; it
is deterministic and small enough to be trained through its own output. Signals are pre-emphasised inside, PCM in
[-1, 1] at the boundary.

J.-M. Valin, A. Mustafa and J. Buethe, "Very Low Complexity Speech Synthesis Using Framewise Autoregressive GAN (FARGAN)
with Pitch Prediction", IEEE Signal Processing Letters, 2024.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jdred.config import FRAME_SAMPLES, MAX_PERIOD, MIN_PERIOD, NUM_BANDS, NUM_FEATURES, FARGANConfig
from jdred.dsp.filters import deemphasize, preemphasize
from jdred.dsp.pitch import period_from_feature
from jdred.layers import GLU, GRU, CausalConv, Dense
from jdred.streaming import batch_state
from jdred.vocoder import VocoderInput

SUBFRAME_SAMPLES = 40
SUBFRAMES = FRAME_SAMPLES // SUBFRAME_SAMPLES
MEMORY_SAMPLES = MAX_PERIOD
MARGIN = 2
"""Samples on either side of the pitch prediction that the first layer sees as well."""
PITCH_SAMPLES = SUBFRAME_SAMPLES + 2 * MARGIN
FORCED_SUBFRAMES = 6
"""Sub-frames of real past that priming forces: the row before the boundary row, and the known half of that one."""


class ConditionNetwork(nnx.Module):
    """Feature rows to one conditioning vector a sub-frame. Row k + 1 yields those of row k."""

    def __init__(self, config: FARGANConfig, *, rngs: nnx.Rngs):
        width = config.pitch_embedding
        self.pitch = nnx.Param(0.1 * jax.random.normal(rngs.params(), (MAX_PERIOD - MIN_PERIOD, width)))
        self.dense = Dense(NUM_FEATURES + width, config.condition_dense, rngs=rngs, use_bias=False)
        self.conv = CausalConv(config.condition_dense, config.condition_conv, kernel_size=3, rngs=rngs, use_bias=False)
        self.output = Dense(config.condition_conv, SUBFRAMES * config.condition, rngs=rngs, use_bias=False)

    def init_state(self) -> Float[Array, "2 dense"]:
        return self.conv.init_state()

    def _inputs(self, features: Array) -> Array:
        pitch = self.pitch[...][period_from_feature(features[..., NUM_BANDS]) - MIN_PERIOD]
        return jnp.tanh(self.dense(jnp.concatenate([features, pitch], axis=-1)))

    def _finish(self, x: Array) -> Array:
        x = jnp.tanh(self.output(jnp.tanh(x)))
        return x.reshape(*x.shape[:-1], SUBFRAMES, -1)

    def step(self, memory: Float[Array, "... 2 dense"], features: Float[Array, "... 20"]):
        memory, x = self.conv.step(memory, self._inputs(features))
        return memory, self._finish(x)

    def scan(self, memory: Float[Array, "... 2 dense"], features: Float[Array, "rows ... 20"]):
        """All rows at once."""
        memory, x = self.conv.scan(memory, self._inputs(features))
        return memory, self._finish(x)


class SubframeState(NamedTuple):
    """What the sub-frame network remembers."""

    memory: Float[Array, "... 256"]
    """The last samples, pre-emphasised."""
    inputs: Float[Array, "... inputs"]
    """Inputs of the last step."""
    h: tuple[Float[Array, "... width"], ...]
    """States of the three GRUs."""


class SubframeInput(NamedTuple):
    """One 2.5 ms step."""

    condition: Float[Array, "... condition"]
    period: Int[Array, "..."]
    """Pitch period in samples, 32 .. 255."""
    truth: Float[Array, "... 40"]
    """Pre-emphasised samples to remember instead of those said."""
    known: Bool[Array, "..."]
    """Whether there is a truth to remember."""


class Heard(NamedTuple):
    """What the sub-frame network hears before it speaks."""

    gain: Float[Array, "... 1"]
    pitch: Float[Array, "... 44"]
    """Of the signal one period ago, divided by the gain."""
    last: Float[Array, "... 40"]
    """The last samples, likewise."""
    inputs: Float[Array, "... inputs"]
    """Conditioning and both of these."""


class Layers(NamedTuple):
    """What the layers of the sub-frame network say, before (``ungated_``, ``h``) and after their gates."""

    ungated_first: Float[Array, "... first"]
    first: Float[Array, "... first"]
    h: tuple[Float[Array, "... width"], ...]
    outputs: tuple[Float[Array, "... width"], ...]
    ungated_dense: Float[Array, "... dense"]
    dense: Float[Array, "... dense"]


class SubframeNetwork(nnx.Module):
    """40 samples a step: a layer over this step's inputs and the last one's, three GRUs, a dense end."""

    def __init__(self, config: FARGANConfig, *, rngs: nnx.Rngs):
        inputs = config.condition + PITCH_SAMPLES + SUBFRAME_SAMPLES
        self.n_inputs = inputs
        self.gain = Dense(config.condition, 1, rngs=rngs)
        self.first = Dense(2 * inputs, config.first, rngs=rngs, use_bias=False)
        self.first_glu = GLU(config.first, rngs=rngs)
        self.pitch_gains = Dense(config.first, 4, rngs=rngs)
        widths = (config.first, *config.grus)
        self.grus = nnx.List(
            [
                GRU(n_in + 2 * SUBFRAME_SAMPLES, width, rngs=rngs, use_bias=False)
                for n_in, width in zip(widths, config.grus, strict=False)
            ]
        )
        self.glus = nnx.List([GLU(width, rngs=rngs) for width in config.grus])
        self.dense = Dense(sum(widths) + 2 * SUBFRAME_SAMPLES, config.dense, rngs=rngs, use_bias=False)
        self.dense_glu = GLU(config.dense, rngs=rngs)
        self.output = Dense(config.dense, SUBFRAME_SAMPLES, rngs=rngs, use_bias=False)

    def init_state(self) -> SubframeState:
        return SubframeState(
            jnp.zeros(MEMORY_SAMPLES), jnp.zeros(self.n_inputs), tuple(gru.init_state() for gru in self.grus)
        )

    def hear(self, memory: Float[Array, "... 256"], x: SubframeInput) -> Heard:
        """What a step goes on from, scaled by the gain that the conditioning asks for."""
        gain = jnp.exp(self.gain(x.condition))
        scale = 1 / (1e-5 + gain)
        pitch = jnp.clip(scale * pitch_prediction(memory, x.period), -1, 1)
        last = jnp.clip(scale * memory[..., -SUBFRAME_SAMPLES:], -1, 1)
        return Heard(gain, pitch, last, jnp.concatenate([x.condition, pitch, last], axis=-1))

    def step(self, state: SubframeState, x: SubframeInput) -> tuple[SubframeState, Float[Array, "... 40"]]:
        """Say 40 samples, pre-emphasised."""
        heard = self.hear(state.memory, x)
        layers = self.layers(state, heard)
        said = heard.gain * jnp.tanh(self.output(layers.dense))
        kept = jnp.where(x.known[..., None], x.truth, said)
        memory = jnp.concatenate([state.memory[..., SUBFRAME_SAMPLES:], kept], axis=-1)
        return SubframeState(memory, heard.inputs, layers.h), said

    def layers(self, state: SubframeState, heard: Heard) -> Layers:
        """From what is heard to what the output layer reads."""
        ungated_first = jnp.tanh(self.first(jnp.concatenate([state.inputs, heard.inputs], axis=-1)))
        first = self.first_glu(ungated_first)
        gains = jax.nn.sigmoid(self.pitch_gains(first))
        centre, last = heard.pitch[..., MARGIN:-MARGIN], heard.last
        outputs, h = [first], []
        for number, (gru, glu) in enumerate(zip(self.grus, self.glus, strict=True)):
            x = jnp.concatenate([outputs[-1], gains[..., number : number + 1] * centre, last], axis=-1)
            h.append(gru.step(state.h[number], x)[1])
            outputs.append(glu(h[-1]))
        gathered = jnp.concatenate([*outputs[1:], first, gains[..., 3:] * centre, last], axis=-1)
        ungated_dense = jnp.tanh(self.dense(gathered))
        return Layers(ungated_first, first, tuple(h), tuple(outputs[1:]), ungated_dense, self.dense_glu(ungated_dense))


def pitch_prediction(memory: Float[Array, "... 256"], period: Int[Array, "..."]) -> Float[Array, "... 44"]:
    """What was said one period before the next 40 samples, and before 2 more on either side; repeated where unsaid."""
    index = MEMORY_SAMPLES - MARGIN - period[..., None] + jnp.arange(PITCH_SAMPLES)
    index = jnp.where(index >= MEMORY_SAMPLES, index - period[..., None], index)
    return jnp.take_along_axis(memory, jnp.maximum(index, 0), axis=-1)


def by_subframe(
    condition: Float[Array, "rows ... 4 condition"],
    periods: Int[Array, "rows ..."],
    truth: Float[Array, "... forced"],
) -> SubframeInput:
    """The steps of some rows, time first; ``truth`` is forced upon the first of them."""
    count = SUBFRAMES * len(periods)
    forced = truth.shape[-1] // SUBFRAME_SAMPLES
    blocks = truth.reshape(*truth.shape[:-1], forced, SUBFRAME_SAMPLES)
    blocks = jnp.pad(jnp.moveaxis(blocks, -2, 0), [(0, count - forced)] + [(0, 0)] * truth.ndim)
    known = jnp.broadcast_to(jnp.expand_dims(jnp.arange(count) < forced, range(1, truth.ndim)), blocks.shape[:-1])
    condition = jnp.moveaxis(condition, -2, 1).reshape(count, *condition.shape[1:-2], condition.shape[-1])
    return SubframeInput(condition, jnp.repeat(periods, SUBFRAMES, axis=0), blocks, known)


class FARGANState(NamedTuple):
    """All that a speaking FARGAN remembers of one stream."""

    condition: Float[Array, "... 2 dense"]
    period: Int[Array, "..."]
    """Of the row that is spoken next."""
    subframe: SubframeState
    emphasis: Float[Array, "..."]
    """The last sample spoken."""


class FARGAN(nnx.Module):
    """The network, and a ``jdred.vocoder.Vocoder`` as it is. Works with leading batch axes and under vmap."""

    prime_rows: ClassVar[int] = 3
    """560 samples with the known half of the boundary row: 320 to remember, 240 to force."""
    lookahead_rows: ClassVar[int] = 1
    floor: ClassVar[float] = -15.0

    def __init__(self, config: FARGANConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.condition = ConditionNetwork(config, rngs=rngs)
        self.subframe = SubframeNetwork(config, rngs=rngs)

    def init_state(self) -> FARGANState:
        return FARGANState(
            condition=self.condition.init_state(),
            period=jnp.asarray(MIN_PERIOD, jnp.int32),
            subframe=self.subframe.init_state(),
            emphasis=jnp.zeros(()),
        )

    def step(self, state: FARGANState, x: VocoderInput) -> tuple[FARGANState, Float[Array, "... 160"]]:
        """Take row k + 1, speak row k."""
        memory, condition = self.condition.step(state.condition, x.features)
        subframe, said = self._say(state.subframe, condition, state.period)
        pcm, emphasis = deemphasize(said, state.emphasis)
        period = period_from_feature(x.features[..., NUM_BANDS])
        return FARGANState(memory, period, subframe, emphasis), jnp.clip(pcm, -1.0, 1.0)

    def prime(
        self,
        features: Float[Array, "rows ... 20"],
        pcm: Float[Array, "... known"],
        uniforms: Float[Array, "... 160 8"] | None = None,
    ) -> tuple[FARGANState, Float[Array, "... 80"]]:
        """Hear the real past up to the middle of a row K and say the second half of that row.

        Args:
          features: rows K - 3 .. K + 1.
          pcm: the 560 samples before sample 160 K.
        """
        memory, condition, periods = self.read(features)
        signal, emphasis = preemphasize(pcm)
        state = self.remember(signal[..., : -FORCED_SUBFRAMES * SUBFRAME_SAMPLES])
        truth = signal[..., -FORCED_SUBFRAMES * SUBFRAME_SAMPLES :]
        subframe, said = self.speak(state, condition[-2:], periods[-3:-1], truth)
        rest, emphasis = deemphasize(said[..., -FRAME_SAMPLES // 2 :], emphasis)
        return FARGANState(memory, periods[-1], subframe, emphasis), jnp.clip(rest, -1.0, 1.0)

    def read(self, features: Float[Array, "rows ... 20"]):
        """Rows from nothing: the convolution's memory, the conditioning that each row yields, and its period."""
        memory = batch_state(self.condition.init_state(), features.shape[1:-1])
        memory, condition = self.condition.scan(memory, features)
        return memory, condition, period_from_feature(features[..., NUM_BANDS])

    def remember(self, signal: Float[Array, "... samples"]) -> SubframeState:
        """The state after a real past of at least 256 pre-emphasised samples, before any was forced."""
        return batch_state(self.subframe.init_state(), signal.shape[:-1])._replace(memory=signal[..., -MEMORY_SAMPLES:])

    def speak(
        self,
        state: SubframeState,
        condition: Float[Array, "rows ... 4 condition"],
        periods: Int[Array, "rows ..."],
        truth: Float[Array, "... forced"],
    ) -> tuple[SubframeState, Float[Array, "... samples"]]:
        """Rows from their conditioning, pre-emphasised; ``truth`` is forced upon the first sub-frames.

        Where a sample is forced the output has it, too. Differentiable through all that was said.
        """
        xs = by_subframe(condition, periods, truth)
        state, said = jax.lax.scan(self.subframe.step, state, xs)
        said = jnp.where(xs.known[..., None], xs.truth, said)
        return state, jnp.moveaxis(said, 0, -2).reshape(*truth.shape[:-1], -1)

    def _say(self, state: SubframeState, condition: Array, period: Array) -> tuple[SubframeState, Array]:
        """One row, nothing forced."""
        nothing = jnp.zeros((*period.shape, 0))
        return self.speak(state, condition[None], period[None], nothing)
