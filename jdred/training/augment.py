"""Makes few hours of speech go further: room, tilt, noise, level, clipping.

After the data preparation of LPCNet and Opus (J.-M. Valin et al.), milder where our corpus is noisy already.
All filters are applied in the frequency domain, so a crop costs a handful of FFTs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from jdred.config import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities and ranges; (lowest, highest) are drawn from evenly."""

    gain_db: tuple[float, float] = (-30.0, 9.0)
    quiet: float = 0.05
    """Probability of another 40 dB less."""
    muted: float = 0.01
    """Probability of no speech at all."""
    tilt: float = 1 / 3
    """Probability of a random second-order filter, of speech and noise apart."""
    tilt_coefficient: float = 0.375
    """Largest coefficient of that filter; below 0.5 it is stable."""
    room: float = 0.25
    decay_s: tuple[float, float] = (0.1, 0.6)
    """Time in which the room falls by 60 dB."""
    reverberant_db: tuple[float, float] = (-25.0, -5.0)
    """Energy of the room relative to the direct sound."""
    noise: float = 0.35
    noise_db: tuple[float, float] = (-55.0, -15.0)
    """Power of the noise relative to the speech, before the level is drawn."""
    music: float = 0.25
    """Share of music among the noises, where there is any."""
    clip: float = 0.1
    """Probability that loud peaks are clipped at full scale; otherwise the gain is lowered to spare them."""
    round: float = 0.5
    """Probability of rounding to 16 bit."""


def augment(
    pcm: Float[np.ndarray, "samples"],
    rng: np.random.Generator,
    music: Float[np.ndarray, "background"] | None = None,
    config: AugmentConfig = AugmentConfig(),
) -> Float[np.ndarray, "samples"]:
    """One random variant of the speech, float32 in [-1, 1], as long as it was and aligned with it.

    Args:
      music: background to take noise from, at least as long as ``pcm``.
    """
    size = len(pcm) + SAMPLE_RATE_HZ
    response = high_pass(size) * _maybe_tilt(rng, size, config)
    if rng.random() < config.room:
        response = response * room(rng, size, config)
    speech = _filtered(pcm, response)
    mixed = speech * (rng.random() >= config.muted)
    if rng.random() < config.noise:
        level = rms(speech) * 10 ** (rng.uniform(*config.noise_db) / 20)
        mixed = mixed + level * _noise(rng, len(pcm), music, config)
    gain = rng.choice([-1.0, 1.0]) * 10 ** ((rng.uniform(*config.gain_db) - 40 * (rng.random() < config.quiet)) / 20)
    if rng.random() >= config.clip:
        gain /= max(1.0, np.abs(gain * mixed).max())
    mixed = np.clip(gain * mixed, -1, 1)
    if rng.random() < config.round:
        mixed = np.round(mixed * 32768) / 32768
    return mixed.astype(np.float32)


def rms(pcm: Float[np.ndarray, "samples"]) -> float:
    """Root of the mean power."""
    return float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64))))


def biquad(b: Float[np.ndarray, "3"], a: Float[np.ndarray, "3"], size: int) -> Complex[np.ndarray, "bins"]:
    """Frequency response of ``b(z) / a(z)`` at the bins of a real FFT of ``size``."""
    return np.fft.rfft(b, size) / np.fft.rfft(a, size)


def high_pass(size: int) -> Complex[np.ndarray, "bins"]:
    """The high-pass of LPCNet's data preparation: a double zero at 0 Hz, poles at about 10 Hz."""
    return biquad(np.array([1.0, -2.0, 1.0]), np.array([1.0, -1.99599, 0.996]), size)


def room(rng: np.random.Generator, size: int, config: AugmentConfig) -> Complex[np.ndarray, "bins"]:
    """Response of a simulated room: the direct sound, 2 ms later noise that decays exponentially (60 dB in decay_s)."""
    decay_s, level_db = rng.uniform(*config.decay_s), rng.uniform(*config.reverberant_db)
    time_s = np.arange(int(decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s) * (time_s > 0.002)
    tail *= 10 ** (level_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return np.fft.rfft(tail, size)


def _filtered(pcm: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The response has a second more than the signal, in which its tail dies away instead of wrapping around."""
    size = len(pcm) + SAMPLE_RATE_HZ
    return np.fft.irfft(np.fft.rfft(pcm, size) * response, size)[: len(pcm)]


def _maybe_tilt(rng: np.random.Generator, size: int, config: AugmentConfig) -> np.ndarray | float:
    if rng.random() >= config.tilt:
        return 1.0
    coefficients = rng.uniform(-config.tilt_coefficient, config.tilt_coefficient, (2, 2))
    b, a = np.concatenate([np.ones((2, 1)), coefficients], axis=1)
    return biquad(b, a, size)


def _noise(rng: np.random.Generator, samples: int, music: np.ndarray | None, config: AugmentConfig) -> np.ndarray:
    """Unit power: music, or noise falling as 1 / f**slope above 50 Hz (0 = white, 1 = pink, 2 = brown)."""
    size = samples + SAMPLE_RATE_HZ
    if music is not None and rng.random() < config.music:
        start = rng.integers(len(music) - samples + 1)
        noise = music[start : start + samples]
    else:
        slope = rng.uniform(0, 2)
        colour = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ), 50.0) ** (-slope / 2)
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * colour, size)[:samples]
    noise = _filtered(noise, high_pass(size) * _maybe_tilt(rng, size, config))
    return noise / max(rms(noise), 1e-9)
