"""Free runs of a vocoder on what it could stumble over: silence, a held vowel, chords, speech at every level."""

import numpy as np
from jaxtyping import Float

from jdred.config import FRAME_SAMPLES, NUM_LEVELS, SAMPLE_RATE_HZ
from jdred.evaluation.copy_synthesis import speak, surround, through
from jdred.models import Models
from jdred.vocoder import Vocoder

PIECE_S = 10.0
"""Length of the pieces whose levels are compared."""


def vowel(seconds: float, pitch_hz: int = 120, peak: float = 0.5) -> Float[np.ndarray, "samples"]:
    """An "a" that does not move: harmonics under three formants, in phases of their own."""
    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    harmonics = pitch_hz * np.arange(1, int(7000 / pitch_hz))
    s = 2j * np.pi * harmonics
    gain = 1 / (1 + harmonics / 200.0)
    for center, width in ((700, 80), (1200, 100), (2600, 150)):
        pole = np.pi * width - 2j * np.pi * center
        gain = gain * abs(pole) ** 2 / np.abs((s + pole) * (s + np.conj(pole)))
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, len(harmonics))
    sound = np.cos(2 * np.pi * np.outer(time, harmonics) + phases) @ gain
    return np.resize(np.float32(peak * sound / np.abs(sound).max()), round(seconds * SAMPLE_RATE_HZ))


def chords(seconds: float, peak: float = 0.5) -> Float[np.ndarray, "samples"]:
    """Three notes at once, another three every half a second, each with its overtones: music enough to confuse."""
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    roots = 110 * 2 ** (np.array([0, 5, 7, 3])[(2 * time).astype(int) % 4] / 12)
    notes = [np.cumsum(roots * 2 ** (step / 12)) / SAMPLE_RATE_HZ for step in (0, 4, 7, 16)]
    sound = sum(np.sin(2 * np.pi * k * note) / k for note in notes for k in range(1, 9)) * np.exp(-2 * (time % 0.5))
    return np.float32(peak * sound / np.abs(sound).max())


def scenes(
    models: Models, speech: Float[np.ndarray, "samples"], seconds: float, levels: tuple[int, ...] = tuple(range(16))
) -> dict[str, Float[np.ndarray, "rows 20"]]:
    """Feature rows of so many seconds by name, as ``speak`` takes them.

    Args:
      speech: repeated as often as it takes; also much louder and softer, and through the RDO-VAE.
      levels: of the quantiser, 0 .. 15.
    """
    samples = round(seconds * SAMPLE_RATE_HZ) // FRAME_SAMPLES * FRAME_SAMPLES
    said = np.resize(speech, samples)
    sounds = {"silence": np.zeros(samples), "vowel": vowel(seconds)[:samples], "chords": chords(seconds)[:samples]}
    sounds |= {"speech": said, "speech, loudest": np.clip(8 * said, -1, 1), "speech, -40 dB": 0.01 * said}
    rows = dict(zip(sounds, surround(np.stack(list(sounds.values())), models.vocoder, models.extractor), strict=True))
    head = models.vocoder.prime_rows
    for level in levels:
        if not 0 <= level < NUM_LEVELS:
            raise ValueError(f"expected levels 0 .. {NUM_LEVELS - 1}, found {level}")
        coded = through(models.rdovae, models.tables, said, level, models.extractor).rows
        rows[f"speech, level {level}"] = rows["speech"].copy()
        rows[f"speech, level {level}"][head : head + len(coded)] = coded
    return rows


def run(vocoder: Vocoder, rows: dict[str, Float[np.ndarray, "rows 20"]]) -> dict[str, Float[np.ndarray, "samples"]]:
    """All scenes spoken side by side."""
    return dict(zip(rows, np.asarray(speak(vocoder, np.stack(list(rows.values())))), strict=True))


def figures(said: Float[np.ndarray, "samples"]) -> dict[str, float]:
    """What would show a click, a drift or a blow-up.

    Returns:
      ``peak``; ``dc``: largest mean of a second; ``jump``: largest step between two samples; ``level_db``: rms of the
      whole; ``drift_db``: the loudest piece of ``PIECE_S`` over the softest (0 where there is one).
    """

    def level(x: np.ndarray) -> np.ndarray:
        return 10 * np.log10(np.mean(np.square(x, dtype=float), axis=-1) + 1e-12)

    def pieces(length: float) -> np.ndarray:
        count = max(1, int(len(said) / (length * SAMPLE_RATE_HZ)))
        return said[: len(said) // count * count].reshape(count, -1)

    levels = level(pieces(PIECE_S))
    return {
        "peak": float(np.abs(said).max()),
        "dc": float(np.abs(pieces(1.0).mean(axis=-1)).max()),
        "jump": float(np.abs(np.diff(said)).max()),
        "level_db": float(level(said)),
        "drift_db": float(levels.max() - levels.min()),
    }
