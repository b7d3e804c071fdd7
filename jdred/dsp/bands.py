"""The 18 bands: window, spectrum, triangular band energies, floors and the orthonormal DCT to cepstra and back."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jdred.config import FRAME_SAMPLES, NUM_BANDS

WINDOW_SAMPLES = 2 * FRAME_SAMPLES
EDGES = 4 * np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 34, 40])
"""Band centres in FFT bins of 50 Hz."""
LOG_FLOOR = 1e-2
TOTAL_DROP = 8.0
"""The floor under the loudest lower band, in log10 units (80 dB)."""
BAND_DROP = 2.5
"""The floor under the band below, in log10 units (25 dB)."""
CEPSTRUM_OFFSET = np.float32([4.0] + [0.0] * (NUM_BANDS - 1))
"""What is taken off the cepstrum."""


def _window() -> np.ndarray:
    n = np.arange(WINDOW_SAMPLES)
    return np.sin(np.pi / 2 * np.sin(np.pi * (n + 0.5) / WINDOW_SAMPLES) ** 2)


def _triangles() -> np.ndarray:
    """[18, 161]: the weight of every bin in every band; each bin shares one unit between its two neighbours."""
    weights = np.zeros((NUM_BANDS, WINDOW_SAMPLES // 2 + 1))
    for band, (start, stop) in enumerate(zip(EDGES[:-1], EDGES[1:], strict=True)):
        rise = np.arange(stop - start) / (stop - start)
        weights[band, start:stop] += 1 - rise
        weights[band + 1, start:stop] += rise
    return weights


def _dct() -> np.ndarray:
    """[18, 18]: row k is the k-th orthonormal DCT-II basis."""
    k, i = np.mgrid[:NUM_BANDS, :NUM_BANDS]
    basis = np.sqrt(2 / NUM_BANDS) * np.cos(np.pi * k * (i + 0.5) / NUM_BANDS)
    basis[0] *= np.sqrt(0.5)
    return basis


TRIANGLES = _triangles()
_DCT = np.float32(_dct())
_WINDOW = np.float32(_window())
_ENDS_DOUBLED = np.where(np.isin(np.arange(NUM_BANDS), [0, NUM_BANDS - 1]), 2.0, 1.0)
_SUM_BANDS = np.float32((TRIANGLES * _ENDS_DOUBLED[:, None]).T)
"""[161, 18]: the two end bands have half a triangle only and count twice."""

_BELOW = np.arange(NUM_BANDS)[:, None] - np.arange(NUM_BANDS)
"""[18, 18]: how many bands the second lies below the first."""
_LOWER_BANDS = np.where(_BELOW > 0, np.float32(0), -np.inf)
_DROPS = np.where(_BELOW >= 0, np.float32(-BAND_DROP) * _BELOW, -np.inf).astype(np.float32)


def spectrum(windows: Float[Array, "... 320"]) -> Complex[Array, "... 161"]:
    """``FFT(w x) / 320`` of 20 ms of pre-emphasised signal. The scale matters: floors of logarithms are absolute."""
    return jnp.fft.rfft(windows * _WINDOW) / WINDOW_SAMPLES


def power_spectrum(x: Float[Array, "... 320"]) -> Float[Array, "... 161"]:
    """``|FFT(x) / 320|^2``."""
    return power(jnp.fft.rfft(x) / WINDOW_SAMPLES)


def power(x: Complex[Array, "..."]) -> Float[Array, "..."]:
    """``|x|^2``, with a gradient at 0."""
    return x.real**2 + x.imag**2


def band_energies(powers: Float[Array, "... 161"]) -> Float[Array, "... 18"]:
    """Sum a power spectrum over the triangular bands."""
    return powers @ _SUM_BANDS


def cepstrum_from_energies(energies: Float[Array, "... 18"]) -> Float[Array, "... 18"]:
    """Band energies (int16 units squared) to the cepstrum: log10, floors, DCT, c_0 - 4.

    No band falls more than 25 dB under the one below it or 80 dB under the loudest of those.
    """
    raw = jnp.log10(LOG_FLOOR + energies)
    loudest = jnp.max(raw[..., None, :] + _LOWER_BANDS, axis=-1)
    raw = jnp.maximum(raw, loudest - TOTAL_DROP)
    floored = jnp.max(raw[..., None, :] + _DROPS, axis=-1)
    return floored @ _DCT.T - CEPSTRUM_OFFSET


def log_energies_from_cepstrum(cepstrum: Float[Array, "... 18"]) -> Float[Array, "... 18"]:
    """The inverse DCT: log10 of the (floored) band energies."""
    return (cepstrum + CEPSTRUM_OFFSET) @ _DCT


def cepstrum(windows: Float[Array, "... 320"]) -> Float[Array, "... 18"]:
    """Cepstrum of 20 ms of pre-emphasised signal in int16 units. Digital silence gives c_0 = -12.485, the rest 0."""
    return cepstrum_from_energies(band_energies(power(spectrum(windows))))
