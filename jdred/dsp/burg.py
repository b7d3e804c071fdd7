"""Burg features: the spectrum of the newest 10 ms alone, for concealment, available as soon as the frame is.

Each half-frame is fitted by Burg's method (J. P. Burg, 1967; in the regularised and gain-limited form of SILK,
RFC 6716, section 5.2.3.4.2) and its all-pole spectrum turned into a cepstrum.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jdred.config import FRAME_SAMPLES, LPC_ORDER, PREEMPHASIS
from jdred.dsp import INT16_SCALE, bands
from jdred.dsp.lpc import Lattice

_CONDITIONING = 1e-5
"""White noise on the covariance, relative to the signal's energy."""
_MIN_ERROR = 1e-3
"""Residual over signal energy at which the recursion stops (30 dB of gain)."""
_BANDWIDTH = 0.995 ** np.arange(LPC_ORDER + 1)
_ENERGY_COUNT = FRAME_SAMPLES // 2 - 2 * (LPC_ORDER - 1)
_SPECTRUM_GAIN = 0.45 / bands.WINDOW_SAMPLES**3


def _sum(x: Array) -> Array:
    return jnp.sum(x, axis=-1, keepdims=True)


def _cross(pair: Lattice) -> Array:
    return _sum(pair.forward * pair.backward)


def _power(pair: Lattice) -> Array:
    return _sum(pair.forward**2 + pair.backward**2)


def burg(x: Float[Array, "... samples"]) -> tuple[Float[Array, "... 17"], Float[Array, "..."]]:
    """Burg's method of order 16.

    At the order where the gain would pass 30 dB, the reflection coefficient is cut so that it is exactly met, and the
    rest stays zero.

    Args:
      x: the signal, more than 32 samples.
    Returns:
      ``(a, energy)``: prediction error filter, ``a[0] = 1``, and the energy of its residual beyond the first 16
      samples (an estimate from the gain where that was cut).
    """
    total = _sum(x * x)
    noise = _CONDITIONING * total + 1e-9
    sample = jnp.arange(x.shape[-1])

    def raise_order(carry, order):
        lattice, signals, error, done = carry
        lattice, signals = lattice.delayed(), signals.delayed()
        signals = Lattice(*(jnp.where(sample >= order, signal, 0.0) for signal in signals))
        cross = _cross(signals) + noise * _cross(lattice)
        reflection = -2 * cross / (_power(signals) + noise * _power(lattice))
        cut = ~done & (error * (1 - reflection**2) <= _MIN_ERROR)
        limit = jnp.sqrt(1 - _MIN_ERROR / jnp.where(cut, error, 1.0))
        reflection = jnp.where(cut, -jnp.sign(cross) * limit, jnp.where(done, 0.0, reflection))
        error = jnp.where(cut, _MIN_ERROR, error * (1 - reflection**2))
        return (lattice.reflect(reflection), signals.reflect(reflection), error, done | cut), None

    start = Lattice.start(x.shape[:-1], LPC_ORDER), Lattice(x, x), jnp.ones_like(total), jnp.zeros_like(total, bool)
    (lattice, signals, error, done), _ = jax.lax.scan(raise_order, start, jnp.arange(1, LPC_ORDER + 1))
    estimate = (total - _sum(x[..., :LPC_ORDER] ** 2)) * error
    return lattice.forward, jnp.where(done, estimate, _sum(signals.forward**2))[..., 0]


def burg_cepstrum(x: Float[Array, "... 80"]) -> Float[Array, "... 18"]:
    """Cepstrum of the all-pole model of a half-frame of raw signal in int16 units."""
    a, energy = burg(x[..., 1:] - PREEMPHASIS * x[..., :-1])
    taps = jnp.pad(a * np.float32(_BANDWIDTH), [(0, 0)] * (a.ndim - 1) + [(0, bands.WINDOW_SAMPLES - LPC_ORDER - 1)])
    inverse = 1 / (bands.power_spectrum(taps) + 1e-9)
    gain = _SPECTRUM_GAIN * energy / _ENERGY_COUNT
    return bands.cepstrum_from_energies(bands.band_energies(inverse) * gain[..., None])


def burg_features(pcm: Float[Array, "... 160"]) -> Float[Array, "... 36"]:
    """Mean and difference (first minus second) of the Burg cepstra of a frame's halves; raw PCM in [-1, 1]."""
    first, second = jnp.split(INT16_SCALE * pcm, 2, axis=-1)
    first, second = burg_cepstrum(first), burg_cepstrum(second)
    return jnp.concatenate([(first + second) / 2, first - second], axis=-1)
