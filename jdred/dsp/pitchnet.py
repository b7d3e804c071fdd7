"""The neural pitch tracker of libopus (since 1.5): a small network over what the classical one measures, and phases.

It sees how well each frame of residual repeats after each period (224 lags) and how the phases of the 30 lowest bins
turn from frame to frame (instantaneous frequency), and chooses one of 180 pitches, 20 cents apart.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Complex, Float

from jdred.config import FRAME_SAMPLES, MAX_PERIOD, PitchNetworkConfig
from jdred.dsp import bands, pitch
from jdred.dsp.filters import overlap
from jdred.layers import GRU, CausalConv, Dense
from jdred.streaming import batch_state

NUM_BINS = 30
NUM_FREQUENCY = 3 * NUM_BINS - 2
NUM_CLASSES = 180
CLASSES_PER_OCTAVE = 60
"""From 62.5 Hz up."""
_NEAR = 2
"""Classes on either side of the best that have a say."""
_TAPS = 3


class LagConv(nnx.Module):
    """Convolution over time (causal) and lags, 3 by 3, zeros beyond the lags: ``CausalConv`` at every lag."""

    def __init__(self, n_in: int, n_out: int, *, rngs: nnx.Rngs):
        self.conv = CausalConv(_TAPS * n_in, n_out, kernel_size=_TAPS, rngs=rngs)

    def init_state(self) -> Float[Array, "224 2 n_in3"]:
        return batch_state(self.conv.init_state(), (pitch.NUM_LAGS,))

    def scan(self, memory: Float[Array, "... 224 2 n_in3"], x: Float[Array, "time ... 224 n_in"]):
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (0, 0)])
        return self.conv.scan(memory, jnp.concatenate([padded[..., i : i + x.shape[-2], :] for i in range(3)], axis=-1))


class PitchNetState(NamedTuple):
    """What the neural tracker remembers of one stream."""

    spectrum: Float[Array, "... 30 2"]
    """Real and imaginary parts of the lowest bins of the last frame."""
    convs: tuple[Float[Array, "... 224 2 channels"], Float[Array, "... 224 2 channels"]]
    h: Float[Array, "... width"]


class PitchNetwork(nnx.Module):
    """The network, and a ``pitch.Tracker`` as it is."""

    def __init__(self, config: PitchNetworkConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.width
        self.frequency = nnx.List([Dense(n, width, rngs=rngs) for n in (NUM_FREQUENCY, width)])
        self.convs = nnx.List([LagConv(1, config.channels, rngs=rngs), LagConv(config.channels, 1, rngs=rngs)])
        self.joined = Dense(pitch.NUM_LAGS + width, width, rngs=rngs)
        self.gru = GRU(width, width, rngs=rngs)
        self.output = Dense(width, NUM_CLASSES, rngs=rngs)

    def init_state(self) -> PitchNetState:
        convs = tuple(conv.init_state() for conv in self.convs)
        return PitchNetState(jnp.zeros((NUM_BINS, 2)), convs, self.gru.init_state())

    def track(
        self, state: PitchNetState, windows: Float[Array, "... frames 320"], residual: Float[Array, "... blocks 160"]
    ) -> tuple[PitchNetState, pitch.Tracked]:
        """See ``pitch.Tracker``."""
        windows, residual = jax.lax.stop_gradient((windows, residual))
        spectrum = bands.spectrum(windows)[..., :NUM_BINS]
        last = jax.lax.complex(state.spectrum[..., 0], state.spectrum[..., 1])
        frequency = instantaneous_frequency(jnp.concatenate([last[..., None, :], spectrum], axis=-2))
        xcorr = lag_correlation(residual)
        newest = jnp.stack([spectrum[..., -1, :].real, spectrum[..., -1, :].imag], axis=-1)
        state, logits = self.scan(state._replace(spectrum=newest), jnp.moveaxis(frequency, -2, 0), _first(xcorr))
        feature = jax.lax.stop_gradient(jnp.moveaxis(decode(logits), 0, -1))
        return state, pitch.Tracked(feature, pitch.period_from_feature(feature))

    def scan(
        self, state: PitchNetState, frequency: Float[Array, "time ... 88"], xcorr: Float[Array, "time ... 224"]
    ) -> tuple[PitchNetState, Float[Array, "time ... 180"]]:
        """The network alone: logits of the pitches."""
        for dense in self.frequency:
            frequency = jnp.tanh(dense(frequency))
        image, memories = xcorr[..., None], []
        for conv, memory in zip(self.convs, state.convs, strict=True):
            memory, image = conv.scan(memory, image)
            image = jnp.tanh(image)
            memories.append(memory)
        joined = jnp.tanh(self.joined(jnp.concatenate([image[..., 0], frequency], axis=-1)))
        h, states = self.gru.scan(state.h, joined)
        return PitchNetState(state.spectrum, tuple(memories), h), self.output(states)


def _first(x: Array) -> Array:
    return jnp.moveaxis(x, -2, 0)


def instantaneous_frequency(spectra: Complex[Array, "... frames_plus_1 30"]) -> Float[Array, "... frames 88"]:
    """How the phase of each bin turned since the frame before (as a point of the unit circle), and its log power.

    Bin 0 has its power only; then real part, imaginary part and power of each bin.
    """
    now = spectra[..., 1:, :]
    turned = now * jnp.conj(spectra[..., :-1, :])
    turned = turned / (jnp.abs(turned) + 1e-15)
    power = jnp.clip((10 * jnp.log10(1e-15 + bands.power(now)) - 6) / 64, -1, 1)
    rest = jnp.stack([turned.real, turned.imag, power], axis=-1)[..., 1:, :]
    return jnp.concatenate([power[..., :1], rest.reshape(*rest.shape[:-2], -1)], axis=-1)


def lag_correlation(residual: Float[Array, "... blocks 160"]) -> Float[Array, "... frames 224"]:
    """How well each whole frame repeats after each period, 256 first; ``residual`` as in ``Tracker.track``."""
    blocks = pitch.smoothed(residual).reshape(*residual.shape[:-2], -1, FRAME_SAMPLES)
    windows = overlap(blocks, pitch.PAST_FRAMES)[..., (pitch.PAST_FRAMES - 1) * FRAME_SAMPLES - MAX_PERIOD :]
    return pitch.repetition(windows)[0][..., : pitch.NUM_LAGS]


def decode(logits: Float[Array, "... 180"]) -> Float[Array, "..."]:
    """The pitch feature: mean of the best class and its neighbours, weighted by their probability."""
    best = jnp.argmax(logits, axis=-1)[..., None]
    classes = best + np.arange(-_NEAR, _NEAR + 1)
    inside = (classes >= 0) & (classes < NUM_CLASSES)
    near = jnp.take_along_axis(logits, jnp.clip(classes, 0, NUM_CLASSES - 1), axis=-1)
    weights = jnp.where(inside, jnp.exp(near - jnp.take_along_axis(logits, best, axis=-1)), 0.0)
    mean = jnp.sum(weights * classes, axis=-1) / jnp.sum(weights, axis=-1)
    return mean / CLASSES_PER_OCTAVE - 1.5
