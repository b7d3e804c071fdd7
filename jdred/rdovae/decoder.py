"""Latents to features: backwards in time, one 40 ms chunk a step, from a coded state."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jdred.config import CHUNK_FRAMES, NUM_FEATURES, RDOVAEConfig
from jdred.layers import GLU, GRU, CausalConv, Dense


class DecoderInput(NamedTuple):
    """One chunk, the newest first in a sequence."""

    latent: Float[Array, "... latent"]
    level: Int[Array, "..."]


class DecoderState(NamedTuple):
    grus: tuple[Float[Array, "... width"], ...]
    convs: tuple[Float[Array, "... memory width"], ...]


class Cuts(NamedTuple):
    """Where a sequence of chunks begins afresh, as a payload does; random cuts train at a fixed shape.

    ``where[t]``: chunk t is the newest of a run. ``states[t]``: its coded state (ignored elsewhere).
    """

    where: Bool[Array, "time ..."]
    states: Float[Array, "time ... state"]


class _Decoder(nnx.Module):
    """Streaming shell, see ``encoder._Encoder``."""

    def start(self, coded: Float[Array, "... state"]) -> DecoderState:
        """The state before the newest chunk of a payload; convolutions remember nothing."""
        memories = (conv.init_state() for conv in self.convs)
        batch = coded.shape[:-1]
        return DecoderState(self._first_grus(coded), tuple(jnp.broadcast_to(m, batch + m.shape) for m in memories))

    def init_state(self) -> DecoderState:
        """``start`` from the all-zero coded state."""
        return self.start(jnp.zeros(self.state_dim))

    def step(self, state: DecoderState, x: DecoderInput) -> tuple[DecoderState, Float[Array, "... 4 20"]]:
        """One latent in, four feature rows out, the newest row first."""
        return self._forward(
            state, x, lambda i, gru, h, y: gru.step(h, y), lambda conv, memory, y: conv.step(memory, y)
        )

    def scan(
        self, state: DecoderState, xs: DecoderInput, cuts: Cuts | None = None
    ) -> tuple[DecoderState, Float[Array, "time ... 4 20"]]:
        """``step`` over a leading time axis (newest first), layer by layer."""
        if cuts is None:
            first, since = None, None
        else:
            first = self._first_grus(cuts.states)
            since = steps_since(cuts.where)

        def run_gru(i, gru, h, y):
            return gru.scan(h, y, None if cuts is None else (cuts.where, first[i]))

        return self._forward(state, xs, run_gru, lambda conv, memory, y: conv.scan(memory, y, since))

    def _input(self, x: DecoderInput) -> Array:
        if not self.level_input:
            return x.latent
        return jnp.concatenate([x.latent, (x.level / 8 - 1)[..., None]], axis=-1)

    def _output(self, x: Array) -> Array:
        rows = self.output(x)
        return rows.reshape(*rows.shape[:-1], CHUNK_FRAMES, NUM_FEATURES)


def steps_since(where: Bool[Array, "time ..."]) -> Int[Array, "time ..."]:
    """Steps since the last marked one, 0 at it; before the first mark, steps since the beginning."""
    time = jnp.arange(where.shape[0]).reshape((-1,) + (1,) * (where.ndim - 1))
    marks = jnp.where(where, time, 0)
    return time - jnp.maximum.accumulate(marks, axis=0)


class DenseDecoder(_Decoder):
    """libopus 1.6: GRU, gated linear unit, bottleneck and convolution in five blocks, all concatenated."""

    def __init__(self, config: RDOVAEConfig, *, rngs: nnx.Rngs):
        self.level_input, self.state_dim = config.level_input, config.state_dim
        self.start_hidden = Dense(config.state_dim, config.state_hidden, rngs=rngs)
        self.start_grus = Dense(config.state_hidden, config.blocks * config.decoder_gru, rngs=rngs)
        width = config.decoder_width
        self.input = Dense(config.latent_dim + int(config.level_input), width, rngs=rngs)
        grus, glus, bottlenecks, convs = [], [], [], []
        for _ in range(config.blocks):
            grus.append(GRU(width, config.decoder_gru, rngs=rngs))
            glus.append(GLU(config.decoder_gru, rngs=rngs))
            width += config.decoder_gru
            bottlenecks.append(Dense(width, config.decoder_conv, rngs=rngs))
            convs.append(CausalConv(config.decoder_conv, config.decoder_conv, kernel_size=2, rngs=rngs))
            width += config.decoder_conv
        self.grus, self.glus = nnx.List(grus), nnx.List(glus)
        self.bottlenecks, self.convs = nnx.List(bottlenecks), nnx.List(convs)
        self.output = Dense(width, CHUNK_FRAMES * NUM_FEATURES, rngs=rngs)

    def _first_grus(self, coded: Float[Array, "... state"]) -> tuple[Array, ...]:
        joined = jnp.tanh(self.start_grus(jnp.tanh(self.start_hidden(coded))))
        return tuple(jnp.split(joined, len(self.grus), axis=-1))

    def _forward(self, state: DecoderState, x: DecoderInput, run_gru, run_conv):
        x = jnp.tanh(self.input(self._input(x)))
        grus, convs = [], []
        for i, (gru, glu, bottleneck, conv) in enumerate(
            zip(self.grus, self.glus, self.bottlenecks, self.convs, strict=True)
        ):
            h, y = run_gru(i, gru, state.grus[i], x)
            x = jnp.concatenate([x, glu(y)], axis=-1)
            memory, y = run_conv(conv, state.convs[i], jnp.tanh(bottleneck(x)))
            x = jnp.concatenate([x, jnp.tanh(y)], axis=-1)
            grus.append(h)
            convs.append(memory)
        return DecoderState(tuple(grus), tuple(convs)), self._output(x)


class PaperDecoder(_Decoder):
    """ICASSP 2023: a chain of dense layers and GRUs, each GRU started from the coded state; no convolution."""

    def __init__(self, config: RDOVAEConfig, *, rngs: nnx.Rngs):
        c, c2 = config.decoder_gru, config.decoder_width
        self.level_input, self.state_dim = config.level_input, config.state_dim
        inputs = [config.latent_dim + int(config.level_input)] + [c] * (config.blocks - 1)
        self.start_grus = nnx.List([Dense(config.state_dim, c, rngs=rngs) for _ in inputs])
        self.denses = nnx.List([Dense(n, c2, rngs=rngs) for n in inputs])
        self.grus = nnx.List([GRU(c2, c, rngs=rngs) for _ in inputs])
        self.convs = nnx.List([])
        self.tail = nnx.List([Dense(c, c2, rngs=rngs), Dense(c2, c2, rngs=rngs)])
        self.output = Dense(len(inputs) * (c + c2) + 2 * c2, CHUNK_FRAMES * NUM_FEATURES, rngs=rngs)

    def _first_grus(self, coded: Float[Array, "... state"]) -> tuple[Array, ...]:
        return tuple(jnp.tanh(dense(coded)) for dense in self.start_grus)

    def _forward(self, state: DecoderState, x: DecoderInput, run_gru, run_conv):
        del run_conv
        x, outputs, grus = self._input(x), [], []
        for i, (dense, gru) in enumerate(zip(self.denses, self.grus, strict=True)):
            x = jnp.tanh(dense(x))
            outputs.append(x)
            h, x = run_gru(i, gru, state.grus[i], x)
            outputs.append(x)
            grus.append(h)
        for dense in self.tail:
            x = jnp.tanh(dense(x))
            outputs.append(x)
        return DecoderState(tuple(grus), ()), self._output(jnp.concatenate(outputs, axis=-1))


def make_decoder(config: RDOVAEConfig, *, rngs: nnx.Rngs) -> _Decoder:
    """The decoder that a configuration names."""
    kinds = {"dense": DenseDecoder, "paper": PaperDecoder}
    return kinds[config.architecture](config, rngs=rngs)
