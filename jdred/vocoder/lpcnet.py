"""LPCNet: linear prediction says what it can of a sample, two recurrent networks the distribution of the rest.

A frame-rate network turns feature rows into conditioning. A sample-rate network, 16,000 steps a second, reads the
last sample, its linear prediction and the last excitation as mu-law indices and says how likely each excitation is.
Its larger half may step once for a bunch of samples (``bunch``) or have but a share of its weights (``sparse``), and
the linear prediction may be the frame-rate network's own.
Signals are pre-emphasised and in int16 units inside, PCM in [-1, 1] at the boundary.

J.-M. Valin and J. Skoglund, "LPCNet: Improving Neural Speech Synthesis Through Linear Prediction", ICASSP 2019; the
tree of the output is that of "Neural Speech Synthesis on a Shoestring" (ICASSP 2022).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jdred.config import FRAME_SAMPLES, LPC_ORDER, MAX_PERIOD, NUM_BANDS, LPCNetConfig
from jdred.dsp import INT16_SCALE, mulaw
from jdred.dsp.filters import deemphasize, preemphasize
from jdred.dsp.lpc import lpc_from_cepstrum, predict_by_frame, step_up, widen
from jdred.dsp.pitch import period_from_feature
from jdred.layers import GRU, Dense
from jdred.streaming import batch_state
from jdred.vocoder import VocoderInput, sampling
from jdred.vocoder.bunch import (
    Indices,
    LookUp,
    Tables,
    gates_by_sample,
    known_before,
    lag,
    look_up,
    one_period_ago,
    read_by_bunch,
)
from jdred.vocoder.frame_network import FrameNetwork, FrameState
from jdred.vocoder.sparse import BlockGRU

POST_FILTER = 0.4
"""Strength of ``comb``, by PLCMOS and PESQ."""


class TreeOutput(nnx.Module):
    """The logits of the tree: two tanh units a node, weighted and added ("dual FC")."""

    def __init__(self, n_in: int, *, rngs: nnx.Rngs):
        self.units = Dense(n_in, 2 * sampling.NUM_INDICES, rngs=rngs)
        self.factors = nnx.Param(jnp.ones((2, sampling.NUM_INDICES)))

    def __call__(self, h: Float[Array, "... n_in"]) -> Float[Array, "... 256"]:
        units = jnp.tanh(self.units(h)).reshape(h.shape[:-1] + (2, sampling.NUM_INDICES))
        return (units * self.factors[...]).sum(axis=-2)

    def at(self, h: Float[Array, "... n_in"], nodes: Int[Array, "... chosen"]) -> Float[Array, "... chosen"]:
        """The logits of some nodes."""
        both = jnp.concatenate([nodes, nodes + sampling.NUM_INDICES], axis=-1)
        units = jnp.tanh((self.units.kernel[...].T[both] * h[..., None, :]).sum(axis=-1) + self.units.bias[...][both])
        weighed = units * self.factors[...].reshape(-1)[both]
        return weighed.reshape(*nodes.shape[:-1], 2, -1).sum(axis=-2)


def _embedding_init(key: Array, width: int) -> Float[Array, "256 width"]:
    """Noise on a ramp, so that near indices begin alike."""
    ramp = jnp.linspace(-1.0, 1.0, sampling.NUM_INDICES)[:, None]
    noise = jax.random.uniform(key, (sampling.NUM_INDICES, width), minval=-1.0)
    return 0.1 * 3**0.5 * (ramp + noise)


class LPCNet(nnx.Module):
    """The trainable network. ``fold`` makes the vocoder of it."""

    def __init__(self, config: LPCNetConfig, *, rngs: nnx.Rngs):
        width, bunch, known = config.condition, config.bunch, known_before(long_term=config.long_term)
        self.config, self.lpc_gamma = config, config.lpc_gamma
        self.frame = FrameNetwork(config, rngs=rngs)
        self.embedding = nnx.Param(_embedding_init(rngs.params(), config.embedding))
        self.embedding_kernels = _embedding_kernels(config, bunch * known, config.gru_a, rngs)
        if min(config.density) < 1:
            self.gru_a: GRU = BlockGRU(width, config.gru_a, config.density, rngs=rngs)
        else:
            self.gru_a = GRU(width, config.gru_a, rngs=rngs)
        self.condition_b = Dense(width, 3 * config.gru_b, rngs=rngs, use_bias=False)
        self.gru_b = GRU(config.gru_a, config.gru_b, rngs=rngs)
        self.output = TreeOutput(config.gru_b, rngs=rngs)
        self.bunch_kernels = _embedding_kernels(config, bunch * known, config.gru_b, rngs) if bunch > 1 else None
        self.reflections = _faint(Dense(width, LPC_ORDER, rngs=rngs)) if config.end_to_end else None

    def tables(self) -> Tables:
        """Embeddings and their kernels as tables."""

        def folded(kernels: nnx.Param) -> Float[Array, "bunch known 256 gates"]:
            tables = self.embedding[...] @ kernels[...]
            return tables.reshape(self.config.bunch, -1, *tables.shape[1:])

        return Tables(
            folded(self.embedding_kernels), None if self.bunch_kernels is None else folded(self.bunch_kernels)
        )

    def scan(
        self, condition: Float[Array, "frames ... condition"], indices: Indices
    ) -> Float[Array, "samples ... gru_b"]:
        """Teacher forcing: states of GRU B where all inputs are known, from silence.

        ``output`` of the result is the logits of each sample. ``indices`` as for ``hear``.
        """
        return hear(self, self.tables(), condition, indices)[1]


def _embedding_kernels(config: LPCNetConfig, tables: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
    init = nnx.initializers.glorot_uniform(batch_axis=0)
    return nnx.Param(init(rngs.params(), (tables, config.embedding, 3 * width)))


def _faint(layer: Dense) -> Dense:
    """With small weights: at first there is hardly any prediction, and nothing that a random one could upset."""
    return jax.tree.map(lambda a: 0.1 * a, layer)


def reflect(network: "LPCNet | LPCNetVoice", condition: Float[Array, "... condition"]) -> Float[Array, "... 16"]:
    """The reflection coefficients that an end-to-end network says, in (-1, 1)."""
    return jnp.tanh(network.reflections(condition))


def linear_prediction(
    network: "LPCNet | LPCNetVoice", features: Float[Array, "... 20"], condition: Float[Array, "... condition"]
) -> Float[Array, "... 16"]:
    """The LPC of rows: the network's own or those of the cepstrum."""
    if network.reflections is None:
        return lpc_from_cepstrum(features[..., :NUM_BANDS], network.lpc_gamma)
    return widen(step_up(reflect(network, condition)), network.lpc_gamma)


def hear(
    network: "LPCNet | LPCNetVoice",
    tables: Tables,
    condition: Float[Array, "frames ... condition"],
    indices: Indices,
) -> tuple[Float[Array, "... gru_a"], Float[Array, "samples ... gru_b"]]:
    """Known samples from silence: the last state of GRU A and all of GRU B.

    The parallel twin of speaking: what needs no state is done for all samples at once.

    Args:
      indices: ``[known, samples, ...]``, of the last sample, the prediction and the last excitation before each sample,
        perhaps the excitation one period ago; whole bunches, at most 160 samples a frame.
    """
    bunch, samples = tables.bunch, indices.shape[1]

    def repeated(gates: Array, times: int, count: int) -> Array:
        return jnp.repeat(gates, times, axis=0)[:count]

    gates = repeated(network.gru_a.project(condition), FRAME_SAMPLES // bunch, samples // bunch)
    gates += tables.of_bunch(read_by_bunch(indices, bunch))
    last, h_a = network.gru_a.run(network.gru_a.init_state(), gates)
    gates = repeated(network.condition_b(condition), FRAME_SAMPLES, samples) + gates_by_sample(tables, indices)
    gates += repeated(network.gru_b.project(h_a), bunch, samples)
    return last, network.gru_b.run(network.gru_b.init_state(), gates)[1]


class VoiceState(NamedTuple):
    """All that a speaking LPCNet remembers of one stream."""

    frame: FrameState
    h_a: Float[Array, "... gru_a"]
    h_b: Float[Array, "... gru_b"]
    signal: Float[Array, "... 256"]
    """The last samples, pre-emphasised, int16 units, newest last, before the post-filter."""
    excitation: Int[Array, "... memory"]
    """The last excitations as mu-law indices, newest last: 1, or enough for the longest period, 256."""
    read: Int[Array, "... read"]
    """What GRU A has yet to read: the indices known before each sample of the last bunch but its first."""
    emphasis: Float[Array, "..."]
    """The last sample spoken, int16 units."""


class Told(NamedTuple):
    """What a row tells each of its samples."""

    taps: Float[Array, "... 16"]
    """Of the linear prediction, the one of the newest sample last."""
    gates_a: Float[Array, "... gates_a"]
    gates_b: Float[Array, "... gates_b"]
    lag: Int[Array, "..."]
    """See ``bunch.lag``."""


class Manner(NamedTuple):
    """How a bunch is said: drawn at random, or the same again with slopes (``training.freerun``)."""

    draw: Callable[[int, Array], Indices]
    """The excitation at a place of the bunch, from the state of GRU B."""
    quantize: Callable[[Array], Indices] = mulaw.quantize
    look_up: LookUp = look_up
    settle: Callable[[int | None, Array], Array] = lambda place, h: h
    """What becomes of a state: of GRU B at a place, or of GRU A (None)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LPCNetVoice:
    """LPCNet as a ``jdred.vocoder.Vocoder``: everything of a frame before the samples, small steps after."""

    prime_rows: ClassVar[int] = 2
    """With the known half of the boundary row 25 ms of real past, as in LPCNet's PLC."""
    lookahead_rows: ClassVar[int] = 0
    floor: ClassVar[float] = -10.0

    frame: FrameNetwork
    tables: Tables
    gru_a: GRU
    condition_b: Dense
    gru_b: GRU
    output: TreeOutput
    reflections: Dense | None
    lpc_gamma: float = field(default=1.0, metadata={"static": True})
    confinement: float = field(default=sampling.CONFINEMENT, metadata={"static": True})
    temperature: float = field(default=1.0, metadata={"static": True})
    post_filter: float = field(default=POST_FILTER, metadata={"static": True})
    """Strength of ``comb``."""

    def init_state(self) -> VoiceState:
        return VoiceState(
            frame=self.frame.init_state(),
            h_a=self.gru_a.init_state(),
            h_b=self.gru_b.init_state(),
            signal=jnp.zeros(MAX_PERIOD),
            excitation=jnp.full(self._memory, mulaw.ZERO, jnp.int32),  # index 0 would be a loud click
            read=jnp.full(self.tables.known * (self.tables.bunch - 1), mulaw.ZERO, jnp.int32),
            emphasis=jnp.zeros(()),
        )

    @property
    def _memory(self) -> int:
        """Excitations that are remembered."""
        return MAX_PERIOD if self.tables.long_term else 1

    def step(self, state: VoiceState, x: VocoderInput) -> tuple[VoiceState, Float[Array, "... 160"]]:
        """Speak one row."""
        frame, condition = self.frame.step(state.frame, x.features)
        return self._say(state._replace(frame=frame), x.features, condition, x.uniforms)

    def prime(
        self, features: Float[Array, "rows ... 20"], pcm: Float[Array, "... known"], uniforms: Float[Array, "... 160 8"]
    ) -> tuple[VoiceState, Float[Array, "... 80"]]:
        """Hear the samples that are known, say the others of the last row. Works on any number of rows."""
        state, condition = self.remember(features, pcm)
        return self._say(state, features[-1], condition[-1], uniforms[..., FRAME_SAMPLES // 2 :, :])

    def remember(
        self, features: Float[Array, "rows ... 20"], pcm: Float[Array, "... known"]
    ) -> tuple[VoiceState, Float[Array, "rows ... condition"]]:
        """The state after the samples that are known, and the conditioning of all rows."""
        frames = batch_state(self.frame.init_state(), pcm.shape[:-1])
        frame, condition = self.frame.scan(frames, features)
        signal, emphasis = preemphasize(INT16_SCALE * pcm)
        indices, excitation = self.observe(linear_prediction(self, features, condition), features, signal)
        h_a, h_b = hear(self, self.tables, condition, indices)
        late = jnp.moveaxis(indices[:, indices.shape[1] - self.tables.bunch + 1 :], 1, 0)
        late = jnp.moveaxis(late.reshape(-1, *late.shape[2:]), 0, -1)
        signal = jnp.concatenate([jnp.zeros((*signal.shape[:-1], MAX_PERIOD)), signal], axis=-1)[..., -MAX_PERIOD:]
        return VoiceState(frame, h_a, h_b[-1], signal, excitation, late, emphasis), condition

    def observe(
        self, a: Float[Array, "rows ... 16"], features: Float[Array, "rows ... 20"], signal: Float[Array, "... known"]
    ) -> tuple[Int[Array, "read known ..."], Int[Array, "... memory"]]:
        """What the networks read of a known signal, pre-emphasised and from silence, and its last excitations."""
        known = signal.shape[-1]
        unknown = len(a) * FRAME_SAMPLES - known
        padded = jnp.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(LPC_ORDER, unknown)])
        prediction = predict_by_frame(jnp.moveaxis(a, 0, -2), padded)[..., :known]
        excitation = mulaw.quantize(signal - prediction)
        before = jnp.concatenate([jnp.full_like(excitation[..., :1], mulaw.ZERO), excitation[..., :-1]], axis=-1)
        last = mulaw.quantize(padded[..., LPC_ORDER - 1 : LPC_ORDER - 1 + known])
        read = [jnp.moveaxis(x, -1, 0) for x in (last, mulaw.quantize(prediction), before)]
        if self.tables.long_term:
            read.append(one_period_ago(jnp.moveaxis(excitation, -1, 0), features))
        silence = jnp.full_like(excitation[..., :1], mulaw.ZERO, shape=(*excitation.shape[:-1], self._memory))
        return jnp.stack(read), jnp.concatenate([silence, excitation], axis=-1)[..., -self._memory :]

    def _say(
        self, state: VoiceState, features: Array, condition: Array, uniforms: Float[Array, "... samples 8"]
    ) -> tuple[VoiceState, Float[Array, "... samples"]]:
        """The next samples of a row, a number of bunches."""
        before = state.signal
        state, said = self.speak(state, self.told(features, condition), uniforms)
        pcm, emphasis = deemphasize(comb(before, said, features, self.post_filter), state.emphasis)
        return state._replace(emphasis=emphasis), jnp.clip(pcm / INT16_SCALE, -1, 1)

    def told(self, features: Float[Array, "... 20"], condition: Float[Array, "... condition"]) -> Told:
        """What rows tell each of their samples."""
        taps = -linear_prediction(self, features, condition)[..., ::-1]
        return Told(taps, self.gru_a.project(condition), self.condition_b(condition), lag(features))

    def speak(
        self, state: VoiceState, told: Told, uniforms: Float[Array, "... samples 8"]
    ) -> tuple[VoiceState, Float[Array, "... samples"]]:
        """The next samples of a row, pre-emphasised, int16 units; ``emphasis`` stays what it was."""
        thresholds = sampling.thresholds(uniforms, self.confinement, self.temperature)
        thresholds = jnp.moveaxis(thresholds, -2, 0)
        thresholds = thresholds.reshape(-1, self.tables.bunch, *thresholds.shape[1:])
        last = state.signal[..., -LPC_ORDER:]
        first = (state.h_a, state.h_b, last, state.excitation, jnp.moveaxis(state.read, -1, 0))

        def say_bunch(carry, thresholds):
            manner = Manner(lambda place, h_b: sampling.sample(self.output(h_b), thresholds[place]))
            return self.say_bunch(told, carry, manner)

        (h_a, h_b, _, excitation, read), said = jax.lax.scan(say_bunch, first, thresholds)
        said = jnp.moveaxis(said.reshape(-1, *said.shape[2:]), 0, -1)
        signal = jnp.concatenate([state.signal, said], axis=-1)[..., -MAX_PERIOD:]
        return VoiceState(state.frame, h_a, h_b, signal, excitation, jnp.moveaxis(read, 0, -1), state.emphasis), said

    def say_bunch(self, told: Told, carry: tuple[Array, ...], manner: Manner):
        """One step of GRU A, and for each sample of its bunch one of GRU B.

        Args:
          carry: states of the GRUs, the last 16 samples, the last excitations, and what GRU A has yet to read.
        Returns:
          the carry of the next bunch, and what was said, samples first.
        """
        h_a, h_b, signal, before, read = carry
        said, drawn = [], []
        for place in range(self.tables.bunch):
            prediction = (told.taps * signal).sum(axis=-1)
            excitation = drawn[-1] if drawn else before[..., -1]
            known = [manner.quantize(signal[..., -1]), manner.quantize(prediction), excitation]
            if self.tables.long_term:  # a bunch is shorter than any lag
                then = self._memory + place - told.lag
                known.append(jnp.take_along_axis(before, then[..., None], axis=-1)[..., 0])
            known = jnp.stack(known)
            # Without a barrier the indices would be computed again for every gate.
            known, read = jax.lax.optimization_barrier((known, jnp.concatenate([read, known])))
            if place == 0:
                h_a = self.gru_a.advance(h_a, told.gates_a + self.tables.of_bunch(read, manner.look_up))
                h_a = manner.settle(None, h_a)
                from_a, read = told.gates_b + self.gru_b.project(h_a), read[:0]
            h_b = self.gru_b.advance(h_b, from_a + self.tables.of_sample(place, known, manner.look_up))
            h_b = manner.settle(place, h_b)
            drawn.append(manner.draw(place, h_b))
            said.append(prediction + mulaw.decode(drawn[-1]))
            signal = jnp.concatenate([signal[..., 1:], said[-1][..., None]], axis=-1)
        excitation = jnp.concatenate([before, jnp.stack(drawn, axis=-1)], axis=-1)[..., -self._memory :]
        return (h_a, h_b, signal, excitation, read), jnp.stack(said)


def comb(
    before: Float[Array, "... 256"],
    said: Float[Array, "... samples"],
    features: Float[Array, "... 20"],
    strength: float,
) -> Float[Array, "... samples"]:
    """Pitch post-filter: what was said one period ago is added, the more the more voiced a row is.

    Where pitch is steady harmonics stay as loud as they are; the noise between them becomes softer (J.-H. Chen and
    A. Gersho, "Adaptive Postfiltering for Quality Enhancement of Coded Speech", 1995).

    Args:
      before: the last samples before these, unfiltered; all are pre-emphasised.
      strength: 0 .. 1; 0 leaves all as it is.
    """
    if not strength:
        return said
    then = MAX_PERIOD + jnp.arange(said.shape[-1]) - period_from_feature(features[..., NUM_BANDS])[..., None]
    ago = jnp.take_along_axis(jnp.concatenate([before, said], axis=-1), then, axis=-1)
    gain = strength * jnp.clip(features[..., NUM_BANDS + 1 :] + 0.5, 0, 1)
    return (said + gain * ago) / (1 + gain)


def fold(
    model: LPCNet,
    *,
    confinement: float = sampling.CONFINEMENT,
    temperature: float = 1.0,
    post_filter: float = POST_FILTER,
) -> LPCNetVoice:
    """The vocoder of a network: embeddings and their kernels become tables.

    Args:
      confinement, temperature: see ``sampling.thresholds``.
      post_filter: strength of ``comb``.
    """
    return LPCNetVoice(
        frame=model.frame,
        tables=model.tables(),
        gru_a=model.gru_a,
        condition_b=model.condition_b,
        gru_b=model.gru_b,
        output=model.output,
        reflections=model.reflections,
        lpc_gamma=model.config.lpc_gamma,
        confinement=confinement,
        temperature=temperature,
        post_filter=post_filter,
    )
