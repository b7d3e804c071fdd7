"""How a degraded clip compares with its original: quality, intelligibility, brightness.

All take float PCM in [-1, 1], 16 kHz mono. Measures whose package is absent give None, and say so once.
PLCMOS does not hear long gaps, PESQ and ESTOI hardly hear a missing upper band: read them together.
"""

import importlib
import logging
from functools import cache
from types import ModuleType

import numpy as np
from jaxtyping import Float
from pystoi import stoi as _pystoi

from jdred.config import SAMPLE_RATE_HZ
from jdred.dsp import INT16_SCALE

logger = logging.getLogger(__name__)

WINDOW, HOP = 512, 256
BAND_HZ = (4000, 7500)
LOWER_BAND_HZ = (0, 4000)
FLOOR_DB = 60.0
"""Spectra are floored so far below the loudest bin of the reference."""
ACTIVE_DB = 40.0
"""Frames of the reference within so much of its loudest one count."""

_Clip = Float[np.ndarray, "samples"]


@cache
def _optional(name: str) -> ModuleType | None:
    """The module, or None where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError:
        logger.warning("%s is not installed: its measure is left out (pip install 'jdred[metrics]')", name)
        return None


def stoi(reference: _Clip, degraded: _Clip) -> float:
    """Short-time objective intelligibility, about 0 .. 1 (C. Taal et al., 2011)."""
    return _stoi(reference, degraded, extended=False)


def estoi(reference: _Clip, degraded: _Clip) -> float:
    """Extended STOI, about 0 .. 1 (J. Jensen and C. Taal, 2016); seeded, as it draws a trace of noise."""
    return _stoi(reference, degraded, extended=True)


def _stoi(reference: _Clip, degraded: _Clip, extended: bool) -> float:
    reference, degraded = _pair(reference, degraded)
    np.random.seed(0)  # noqa: NPY002 - the package draws from numpy's global generator
    return float(_pystoi(reference, degraded, SAMPLE_RATE_HZ, extended=extended))


def pesq_wb(reference: _Clip, degraded: _Clip) -> float | None:
    """Wideband PESQ, 1 .. 4.64 (ITU-T P.862.2); None without ``pesq`` or where PESQ finds no speech."""
    reference, degraded = _pair(reference, degraded)
    if (pesq := _optional("pesq")) is None:
        return None
    try:
        return float(pesq.pesq(SAMPLE_RATE_HZ, reference, degraded, "wb"))
    except pesq.PesqError as error:
        logger.warning("PESQ failed: %s", error)
        return None


def plcmos(degraded: _Clip) -> float | None:
    """PLCMOS v2, 1 .. 5, of the degraded clip alone (L. Diener et al., 2023); seeded, as it draws its raters.

    It hears 16-bit PCM, as it would be played: what is far below a bit is no silence to it, and cost up to 0.6.
    """
    _check(degraded)
    if (speechmos := _optional("speechmos.plcmos")) is None:
        return None
    np.random.seed(0)  # noqa: NPY002 - the package draws from numpy's global generator
    played = np.clip(np.round(INT16_SCALE * degraded), -INT16_SCALE, INT16_SCALE - 1) / INT16_SCALE
    return float(speechmos.run(played, sr=SAMPLE_RATE_HZ)["plcmos"])


def lsd_4_7k5_db(reference: _Clip, degraded: _Clip) -> float:
    """``lsd_db`` from 4 to 7.5 kHz: catches dull output."""
    return lsd_db(reference, degraded, *BAND_HZ)


def lsd_0_4k_db(reference: _Clip, degraded: _Clip) -> float:
    """``lsd_db`` up to 4 kHz: where harmonics and formants lie."""
    return lsd_db(reference, degraded, *LOWER_BAND_HZ)


def lsd_db(reference: _Clip, degraded: _Clip, low_hz: int, high_hz: int) -> float:
    """Log-spectral distance in a band, in dB, 0 = equal.

    Periodic Hann windows of 32 ms, 16 ms apart, not padded; per frame the RMS over bins of the difference of the
    floored log powers; mean over the frames where the reference is active. 0 for a reference of silence.
    """
    reference, degraded = _pair(reference, degraded)
    power = spectrogram(reference)
    floor = power.max() * 10 ** (-FLOOR_DB / 10)
    if not floor:
        return 0.0
    low, high = (frequency * WINDOW // SAMPLE_RATE_HZ for frequency in (low_hz, high_hz))
    difference = 10 * np.log10(np.maximum(power, floor) / np.maximum(spectrogram(degraded), floor))
    per_frame = np.sqrt(np.mean(difference[:, low : high + 1] ** 2, axis=1))
    energy = power.sum(1)
    return float(per_frame[energy >= energy.max() * 10 ** (-ACTIVE_DB / 10)].mean())


def spectrogram(pcm: _Clip) -> Float[np.ndarray, "frames 257"]:
    """Powers of windowed spectra; the first window begins at sample 0."""
    window = np.hanning(WINDOW + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(pcm, np.float64), WINDOW)[::HOP]
    return np.abs(np.fft.rfft(window * frames, axis=1)) ** 2


def score(reference: _Clip, degraded: _Clip) -> dict[str, float | None]:
    """All measures of a clip: plcmos, pesq_wb, stoi, estoi, lsd_4_7k5_db.

    Raises:
      ValueError: the clips are not one-dimensional, differ in length, last less than half a second, or have values
        that are not finite.
    """
    return {
        "plcmos": plcmos(degraded),
        "pesq_wb": pesq_wb(reference, degraded),
        "stoi": stoi(reference, degraded),
        "estoi": estoi(reference, degraded),
        "lsd_4_7k5_db": lsd_4_7k5_db(reference, degraded),
    }


def _pair(reference: _Clip, degraded: _Clip) -> tuple[np.ndarray, np.ndarray]:
    _check(reference)
    _check(degraded)
    if len(reference) != len(degraded):
        raise ValueError(f"expected clips of equal length, found {len(reference)} and {len(degraded)} samples")
    return np.asarray(reference, np.float64), np.asarray(degraded, np.float64)


def _check(pcm: _Clip) -> None:
    if np.ndim(pcm) != 1 or len(pcm) < SAMPLE_RATE_HZ // 2:
        raise ValueError(f"expected at least half a second of mono PCM, found shape {np.shape(pcm)}")
    if not np.isfinite(pcm).all():
        raise ValueError("expected finite PCM, found NaN or infinity")
