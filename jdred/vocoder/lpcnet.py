"""LPCNet: linear prediction says what it can of a sample, two recurrent networks the distribution of the rest.

A frame-rate network turns feature rows into conditioning. A sample-rate network, 16,000 steps a second, reads the
last sample, its linear prediction and the last excitation as mu-law indices and says how likely each excitation is.
Signals are pre-emphasised and in int16 units inside, PCM in [-1, 1] at the boundary.

J.-M. Valin and J. Skoglund, "LPCNet: Improving Neural Speech Synthesis Through Linear Prediction", ICASSP 2019; the
tree of the output is that of "Neural Speech Synthesis on a Shoestring" (ICASSP 2022).
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jdred.config import FRAME_SAMPLES, LPC_ORDER, MAX_PERIOD, NUM_BANDS, NUM_FEATURES, LPCNetConfig
from jdred.dsp import INT16_SCALE, mulaw
from jdred.dsp.filters import deemphasize, preemphasize
from jdred.dsp.lpc import lpc_from_cepstrum, predict
from jdred.dsp.pitch import period_from_feature
from jdred.layers import GRU, CausalConv, Dense
from jdred.streaming import batch_state
from jdred.vocoder import VocoderInput, sampling

CONTEXT_ROWS = 4
"""Rows before the one spoken that the frame-rate network sees: two convolutions of kernel 3."""


class FrameState(NamedTuple):
    """Past inputs of the two convolutions."""

    first: Float[Array, "... 2 inputs"]
    second: Float[Array, "... 2 condition"]


class FrameNetwork(nnx.Module):
    """Feature rows to conditioning, once per 10 ms, causal."""

    def __init__(self, config: LPCNetConfig, *, rngs: nnx.Rngs):
        width = config.condition
        self.pitch = nnx.Param(0.1 * jax.random.normal(rngs.params(), (MAX_PERIOD, config.pitch_embedding)))
        self.first = CausalConv(NUM_FEATURES + config.pitch_embedding, width, kernel_size=3, rngs=rngs)
        self.second = CausalConv(width, width, kernel_size=3, rngs=rngs)
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


class TreeOutput(nnx.Module):
    """The logits of the tree: two tanh units a node, weighted and added ("dual FC")."""

    def __init__(self, n_in: int, *, rngs: nnx.Rngs):
        self.units = Dense(n_in, 2 * sampling.NUM_INDICES, rngs=rngs)
        self.factors = nnx.Param(jnp.ones((2, sampling.NUM_INDICES)))

    def __call__(self, h: Float[Array, "... n_in"]) -> Float[Array, "... 256"]:
        units = jnp.tanh(self.units(h)).reshape(h.shape[:-1] + (2, sampling.NUM_INDICES))
        return (units * self.factors[...]).sum(axis=-2)


def _embedding_init(key: Array, width: int) -> Float[Array, "256 width"]:
    """Noise on a ramp, so that near indices begin alike."""
    ramp = jnp.linspace(-1.0, 1.0, sampling.NUM_INDICES)[:, None]
    noise = jax.random.uniform(key, (sampling.NUM_INDICES, width), minval=-1.0)
    return 0.1 * 3**0.5 * (ramp + noise)


class LPCNet(nnx.Module):
    """The trainable network. ``fold`` makes the vocoder of it."""

    def __init__(self, config: LPCNetConfig, *, rngs: nnx.Rngs):
        gates = 3 * config.gru_a
        self.config = config
        self.frame = FrameNetwork(config, rngs=rngs)
        self.embedding = nnx.Param(_embedding_init(rngs.params(), config.embedding))
        kernels = nnx.initializers.glorot_uniform(batch_axis=0)
        self.embedding_kernels = nnx.Param(kernels(rngs.params(), (3, config.embedding, gates)))
        self.gru_a = GRU(config.condition, config.gru_a, rngs=rngs)
        self.condition_b = Dense(config.condition, 3 * config.gru_b, rngs=rngs, use_bias=False)
        self.gru_b = GRU(config.gru_a, config.gru_b, rngs=rngs)
        self.output = TreeOutput(config.gru_b, rngs=rngs)

    def tables(self) -> Float[Array, "3 256 gates"]:
        """What an index of the last sample, the prediction and the last excitation adds to the gates of GRU A."""
        return self.embedding[...] @ self.embedding_kernels[...]

    def scan(
        self, condition: Float[Array, "frames ... condition"], indices: Int[Array, "3 samples ..."]
    ) -> Float[Array, "samples ... gru_b"]:
        """Teacher forcing: states of GRU B where all inputs are known, from silence.

        ``output`` of the result is the logits of each sample.
        """
        return hear(self, self.tables(), condition, indices)[1]


def look_up(tables: Float[Array, "3 256 gates"], indices: Int[Array, "3 ..."]) -> Float[Array, "... gates"]:
    """Sum of the three tables' rows."""
    return tables[0][indices[0]] + tables[1][indices[1]] + tables[2][indices[2]]


def hear(
    network: "LPCNet | LPCNetVoice",
    tables: Float[Array, "3 256 gates"],
    condition: Float[Array, "frames ... condition"],
    indices: Int[Array, "3 samples ..."],
) -> tuple[Float[Array, "... gru_a"], Float[Array, "samples ... gru_b"]]:
    """Known samples from silence: the last state of GRU A and all of GRU B; ``samples`` is at most 160 a frame.

    The parallel twin of speaking: what needs no state is done for all samples at once.
    """

    def by_sample(gates: Array) -> Array:
        return jnp.repeat(gates, FRAME_SAMPLES, axis=0)[: indices.shape[1]]

    gates = by_sample(network.gru_a.project(condition)) + look_up(tables, indices)
    last, h_a = network.gru_a.run(network.gru_a.init_state(), gates)
    gates = by_sample(network.condition_b(condition)) + network.gru_b.project(h_a)
    return last, network.gru_b.run(network.gru_b.init_state(), gates)[1]


class VoiceState(NamedTuple):
    """All that a speaking LPCNet remembers of one stream."""

    frame: FrameState
    h_a: Float[Array, "... gru_a"]
    h_b: Float[Array, "... gru_b"]
    signal: Float[Array, "... 16"]
    """The last samples, pre-emphasised, int16 units, newest last."""
    excitation: Int[Array, "..."]
    """The last excitation as mu-law index."""
    emphasis: Float[Array, "..."]
    """The last sample spoken, int16 units."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LPCNetVoice:
    """LPCNet as a ``jdred.vocoder.Vocoder``: everything of a frame before the samples, 160 small steps after."""

    prime_rows: ClassVar[int] = 2
    """With the known half of the boundary row 25 ms of real past, as in LPCNet's PLC."""
    lookahead_rows: ClassVar[int] = 0
    floor: ClassVar[float] = -10.0

    frame: FrameNetwork
    tables: Float[Array, "3 256 gates"]
    gru_a: GRU
    condition_b: Dense
    gru_b: GRU
    output: TreeOutput
    lpc_gamma: float = field(default=1.0, metadata={"static": True})
    confinement: float = field(default=sampling.CONFINEMENT, metadata={"static": True})
    temperature: float = field(default=1.0, metadata={"static": True})

    def init_state(self) -> VoiceState:
        return VoiceState(
            frame=self.frame.init_state(),
            h_a=self.gru_a.init_state(),
            h_b=self.gru_b.init_state(),
            signal=jnp.zeros(LPC_ORDER),
            excitation=jnp.asarray(mulaw.ZERO, jnp.int32),  # index 0 would be a loud click
            emphasis=jnp.zeros(()),
        )

    def step(self, state: VoiceState, x: VocoderInput) -> tuple[VoiceState, Float[Array, "... 160"]]:
        """Speak one row."""
        frame, condition = self.frame.step(state.frame, x.features)
        return self._say(state._replace(frame=frame), x.features, condition, x.uniforms)

    def prime(
        self, features: Float[Array, "rows ... 20"], pcm: Float[Array, "... known"], uniforms: Float[Array, "... 160 8"]
    ) -> tuple[VoiceState, Float[Array, "... 80"]]:
        """Hear the samples that are known, say the others of the last row. Works on any number of rows."""
        frames = batch_state(self.frame.init_state(), pcm.shape[:-1])
        frame, condition = self.frame.scan(frames, features)
        signal, emphasis = preemphasize(INT16_SCALE * pcm)
        indices, excitation = self._indices(features, signal)
        h_a, h_b = hear(self, self.tables, condition, indices)
        state = VoiceState(frame, h_a, h_b[-1], signal[..., -LPC_ORDER:], excitation, emphasis)
        return self._say(state, features[-1], condition[-1], uniforms[..., FRAME_SAMPLES // 2 :, :])

    def _indices(
        self, features: Float[Array, "rows ... 20"], signal: Float[Array, "... known"]
    ) -> tuple[Int[Array, "3 known ..."], Int[Array, "..."]]:
        """What the networks read of a known signal, pre-emphasised and from silence, and its last excitation."""
        a, known = lpc_from_cepstrum(features[..., :NUM_BANDS], self.lpc_gamma), signal.shape[-1]
        unknown = len(features) * FRAME_SAMPLES - known
        padded = jnp.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(LPC_ORDER, unknown)])
        length = LPC_ORDER + FRAME_SAMPLES - 1
        pasts = jnp.stack([padded[..., n : n + length] for n in range(0, known + unknown, FRAME_SAMPLES)], axis=-2)
        prediction = predict(jnp.moveaxis(a, 0, -2), pasts).reshape(*signal.shape[:-1], -1)[..., :known]
        excitation = mulaw.quantize(signal - prediction)
        before = jnp.concatenate([jnp.full_like(excitation[..., :1], mulaw.ZERO), excitation[..., :-1]], axis=-1)
        last = mulaw.quantize(padded[..., LPC_ORDER - 1 : LPC_ORDER - 1 + known])
        indices = jnp.stack([last, mulaw.quantize(prediction), before])
        return jnp.moveaxis(indices, -1, 1), excitation[..., -1]

    def _say(
        self, state: VoiceState, features: Array, condition: Array, uniforms: Float[Array, "... samples 8"]
    ) -> tuple[VoiceState, Float[Array, "... samples"]]:
        """The next samples of a row."""
        taps = -lpc_from_cepstrum(features[..., :NUM_BANDS], self.lpc_gamma)[..., ::-1]
        gates_a, gates_b = self.gru_a.project(condition), self.condition_b(condition)

        def body(carry, threshold):
            h_a, h_b, signal, excitation = carry
            prediction = (taps * signal).sum(axis=-1)
            indices = jnp.stack([mulaw.quantize(signal[..., -1]), mulaw.quantize(prediction), excitation])
            h_a = self.gru_a.advance(h_a, gates_a + look_up(self.tables, indices))
            h_b = self.gru_b.advance(h_b, gates_b + self.gru_b.project(h_a))
            excitation = sampling.sample(self.output(h_b), threshold)
            said = prediction + mulaw.decode(excitation)
            signal = jnp.concatenate([signal[..., 1:], said[..., None]], axis=-1)
            return (h_a, h_b, signal, excitation), said

        first = (state.h_a, state.h_b, state.signal, state.excitation)
        thresholds = sampling.thresholds(uniforms, self.confinement, self.temperature)
        (h_a, h_b, signal, excitation), said = jax.lax.scan(body, first, jnp.moveaxis(thresholds, -2, 0))
        pcm, emphasis = deemphasize(jnp.moveaxis(said, 0, -1), state.emphasis)
        state = VoiceState(state.frame, h_a, h_b, signal, excitation, emphasis)
        return state, jnp.clip(pcm / INT16_SCALE, -1.0, 1.0)


def fold(model: LPCNet, *, confinement: float = sampling.CONFINEMENT, temperature: float = 1.0) -> LPCNetVoice:
    """The vocoder of a network: embeddings and their kernels become tables. See ``sampling.thresholds``."""
    return LPCNetVoice(
        frame=model.frame,
        tables=model.tables(),
        gru_a=model.gru_a,
        condition_b=model.condition_b,
        gru_b=model.gru_b,
        output=model.output,
        lpc_gamma=model.config.lpc_gamma,
        confinement=confinement,
        temperature=temperature,
    )
