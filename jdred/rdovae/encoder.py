"""Features to latents: one step every 20 ms, forwards in time."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdred.config import NUM_FEATURES, PACKET_FRAMES, RDOVAEConfig
from jdred.layers import GRU, CausalConv, Dense


class Encoded(NamedTuple):
    """What one encoder step says about the speech so far."""

    latent: Float[Array, "... latent"]
    """Describes frames 2k-2 .. 2k+1 (40 ms) for step k."""
    state: Float[Array, "... state"]
    """Where a decoder that begins with this latent starts."""


class EncoderState(NamedTuple):
    grus: tuple[Float[Array, "... width"], ...]
    convs: tuple[Float[Array, "... memory width"], ...]


def _step(layer, state, x):
    return layer.step(state, x)


def _scan(layer, state, xs):
    return layer.scan(state, xs)


class _Encoder(nnx.Module):
    """Streaming shell: subclasses write their network once, ``run`` decides between one step and a whole sequence."""

    def init_state(self) -> EncoderState:
        return EncoderState(
            tuple(gru.init_state() for gru in self.grus), tuple(conv.init_state() for conv in self.convs)
        )

    def step(self, state: EncoderState, x: Float[Array, "... 40"]) -> tuple[EncoderState, Encoded]:
        """Two feature rows (the older first, concatenated) in, a latent and a state out."""
        return self._forward(state, x, _step)

    def scan(self, state: EncoderState, xs: Float[Array, "time ... 40"]) -> tuple[EncoderState, Encoded]:
        """``step`` over a leading time axis, layer by layer."""
        return self._forward(state, xs, _scan)

    def _heads(self, x: Array) -> Array:
        return self.state_out(jnp.tanh(self.state_hidden(x)))


class DenseEncoder(_Encoder):
    """libopus 1.6: every layer sees the concatenation of all before it; convolutions behind a bottleneck."""

    def __init__(self, config: RDOVAEConfig, *, rngs: nnx.Rngs):
        width = config.encoder_width
        self.input = Dense(PACKET_FRAMES * NUM_FEATURES, width, rngs=rngs)
        grus, bottlenecks, convs = [], [], []
        for block in range(config.blocks):
            grus.append(GRU(width, config.encoder_gru, rngs=rngs))
            width += config.encoder_gru
            bottlenecks.append(Dense(width, config.encoder_conv, rngs=rngs))
            convs.append(
                CausalConv(
                    config.encoder_conv,
                    config.encoder_conv,
                    kernel_size=2,
                    dilation=1 if block == 0 else 2,
                    rngs=rngs,
                )
            )
            width += config.encoder_conv
        self.grus, self.bottlenecks, self.convs = nnx.List(grus), nnx.List(bottlenecks), nnx.List(convs)
        self.latent = Dense(width, config.latent_dim, rngs=rngs)
        self.state_hidden = Dense(width, config.state_hidden, rngs=rngs)
        self.state_out = Dense(config.state_hidden, config.state_dim, rngs=rngs)

    def _forward(self, state: EncoderState, x: Array, run) -> tuple[EncoderState, Encoded]:
        x = jnp.tanh(self.input(x))
        grus, convs = [], []
        for i, (gru, bottleneck, conv) in enumerate(zip(self.grus, self.bottlenecks, self.convs, strict=True)):
            h, y = run(gru, state.grus[i], x)
            x = jnp.concatenate([x, y], axis=-1)
            memory, y = run(conv, state.convs[i], jnp.tanh(bottleneck(x)))
            x = jnp.concatenate([x, jnp.tanh(y)], axis=-1)
            grus.append(h)
            convs.append(memory)
        return EncoderState(tuple(grus), tuple(convs)), Encoded(self.latent(x), self._heads(x))


class PaperEncoder(_Encoder):
    """ICASSP 2023: a chain of dense layers and GRUs; all outputs together feed a convolution of four steps."""

    def __init__(self, config: RDOVAEConfig, *, rngs: nnx.Rngs):
        c, c2 = config.encoder_gru, config.encoder_width
        inputs = [PACKET_FRAMES * NUM_FEATURES] + [c] * (config.blocks - 1)
        self.denses = nnx.List([Dense(n, c2, rngs=rngs) for n in inputs])
        self.grus = nnx.List([GRU(c2, c, rngs=rngs) for _ in inputs])
        self.tail = nnx.List([Dense(c, c, rngs=rngs) for _ in range(2)])
        width = len(inputs) * (c + c2) + 2 * c
        self.latent = CausalConv(width, config.latent_dim, kernel_size=4, rngs=rngs)
        self.state_hidden = Dense(width, config.state_hidden, rngs=rngs)
        self.state_out = Dense(config.state_hidden, config.state_dim, rngs=rngs)

    @property
    def convs(self) -> list[CausalConv]:
        return [self.latent]

    def _forward(self, state: EncoderState, x: Array, run) -> tuple[EncoderState, Encoded]:
        outputs, grus = [], []
        for i, (dense, gru) in enumerate(zip(self.denses, self.grus, strict=True)):
            x = jnp.tanh(dense(x))
            outputs.append(x)
            h, x = run(gru, state.grus[i], x)
            outputs.append(x)
            grus.append(h)
        for dense in self.tail:
            x = jnp.tanh(dense(x))
            outputs.append(x)
        x = jnp.concatenate(outputs, axis=-1)
        memory, latent = run(self.latent, state.convs[0], x)
        return EncoderState(tuple(grus), (memory,)), Encoded(latent, jnp.tanh(self._heads(x)))


def make_encoder(config: RDOVAEConfig, *, rngs: nnx.Rngs) -> _Encoder:
    """The encoder that a configuration names."""
    kinds = {"dense": DenseEncoder, "paper": PaperEncoder}
    if config.architecture not in kinds:
        raise ValueError(f"unknown RDO-VAE architecture {config.architecture!r}, expected one of {sorted(kinds)}")
    return kinds[config.architecture](config, rngs=rngs)
