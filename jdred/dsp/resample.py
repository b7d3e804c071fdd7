"""Sound of any rate and channel count to 16 kHz mono, at the edge of the system (numpy and soxr)."""

import numpy as np
import soxr

from jdred.config import SAMPLE_RATE_HZ


class AudioError(ValueError):
    """Sound that cannot be used; the message says what was expected and what was found."""


def to_16k(pcm: np.ndarray, rate_hz: int) -> np.ndarray:
    """Resample to 16 kHz and mix the channels to their mean.

    Args:
      pcm: ``[samples]`` or ``[samples, channels]``, floating point, full scale is +-1.
      rate_hz: its sample rate.
    Returns:
      float32 ``[samples]``, clipped to [-1, 1].
    Raises:
      AudioError: no samples, another shape or type, NaN or infinity, a rate that is not positive.
    """
    pcm = np.asarray(pcm)
    if not np.isfinite(rate_hz) or rate_hz <= 0:
        raise AudioError(f"expected a positive sample rate, found {rate_hz} Hz")
    if pcm.ndim not in (1, 2) or not np.issubdtype(pcm.dtype, np.floating):
        raise AudioError(f"expected float PCM [samples] or [samples, channels], found {pcm.dtype} {list(pcm.shape)}")
    if pcm.size == 0:
        raise AudioError("expected sound, found no samples")
    if not np.isfinite(pcm).all():
        raise AudioError("expected finite samples, found NaN or infinity")
    mono = pcm if pcm.ndim == 1 else pcm.mean(axis=1)
    mono = mono.astype(np.float32)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    if len(mono) == 0:
        raise AudioError(f"expected at least one sample at 16 kHz, found {len(pcm)} at {rate_hz} Hz")
    return np.clip(mono, -1.0, 1.0)
