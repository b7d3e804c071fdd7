"""Any audio file to clean 16 kHz speech: decode, resample, cut to what is spoken, one common level."""

from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from jaxtyping import Bool, Float

from jdred.config import SAMPLE_RATE_HZ

ACTIVE_DB = 35.0
"""A 20 ms frame is active when it lies less than this below the loudest frame of its file."""
SPEECH_LEVEL_DB = -23.0
"""RMS of the active frames after ``level``, dB re full scale."""
PEAK = 0.98
EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".g722")

_FRAME, _HOP = SAMPLE_RATE_HZ // 50, SAMPLE_RATE_HZ // 100
_MARGIN, _FADE = SAMPLE_RATE_HZ // 8, SAMPLE_RATE_HZ // 200


class AudioError(ValueError):
    """A file that holds no usable speech; ``reason`` is the message without its name."""

    def __init__(self, reason: str, path: Path | None = None, detail: object = ""):
        super().__init__(": ".join(str(part) for part in (path, reason, detail) if part))
        self.reason = reason


def decode(path: str | Path) -> Float[np.ndarray, "samples"]:
    """The whole file as float32 in [-1, 1], channels averaged, resampled to 16 kHz.

    ``.g722`` files are raw G.722 at 64 kb/s; everything else is what libsndfile reads.

    Raises:
      AudioError: not audio, empty, sampled below 16 kHz, or with values that are not finite.
    """
    path = Path(path)
    if path.suffix == ".g722":
        pcm, rate = _decode_g722(path.read_bytes()), SAMPLE_RATE_HZ
    else:
        try:
            channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError("expected an audio file, found something else", path, error) from error
        pcm = channels.mean(1)
    if not len(pcm):
        raise AudioError("expected audio, found no samples", path)
    if rate < SAMPLE_RATE_HZ:
        raise AudioError(f"expected at least {SAMPLE_RATE_HZ} Hz, found {rate} Hz", path)
    if not np.isfinite(pcm).all():
        raise AudioError("expected finite samples, found NaN or infinity", path)
    return pcm if rate == SAMPLE_RATE_HZ else soxr.resample(pcm, rate, SAMPLE_RATE_HZ)


def _decode_g722(data: bytes, block: int = 4096) -> Float[np.ndarray, "samples"]:
    context = av.CodecContext.create("g722", "r")
    context.sample_rate, context.layout = SAMPLE_RATE_HZ, "mono"
    packets = (av.Packet(data[i : i + block]) for i in range(0, len(data), block))
    frames = [frame.to_ndarray().reshape(-1) for packet in packets for frame in context.decode(packet)]
    return np.concatenate([*frames, np.zeros(0, np.int16)]).astype(np.float32) / 32768


def active_frames(
    pcm: Float[np.ndarray, "samples"],
) -> tuple[Float[np.ndarray, "frames"], Bool[np.ndarray, "frames"]]:
    """Mean power of 20 ms frames, 10 ms apart, and which of them are active (within ``ACTIVE_DB`` of the loudest)."""
    if len(pcm) < _FRAME:
        return np.zeros(0), np.zeros(0, bool)
    energy = np.concatenate([[0.0], np.cumsum(np.square(pcm, dtype=np.float64))])
    starts = np.arange(0, len(pcm) - _FRAME + 1, _HOP)
    power = np.maximum(energy[starts + _FRAME] - energy[starts], 0) / _FRAME
    return power, (power > 0) & (power >= power.max() * 10 ** (-ACTIVE_DB / 10))


def speech(pcm: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "spoken"]:
    """What is spoken: cut before the first and after the last active frame, brought to the common level.

    Up to 125 ms of the file's own background stay on both sides, faded over 5 ms; pauses inside stay as they are.
    The level is lowered where a peak would pass ``PEAK``.

    Raises:
      AudioError: there is no active frame.
    """
    power, active = active_frames(pcm)
    where = np.flatnonzero(active)
    if not len(where):
        raise AudioError("expected speech, found silence")
    begin = max(0, where[0] * _HOP - _MARGIN)
    spoken = pcm[begin : where[-1] * _HOP + _FRAME + _MARGIN].astype(np.float32)
    ramp = np.arange(1, _FADE + 1, dtype=np.float32) / (_FADE + 1)
    spoken[:_FADE] *= ramp
    spoken[-_FADE:] *= ramp[::-1]
    gain = 10 ** (SPEECH_LEVEL_DB / 20) / np.sqrt(power[active].mean())
    return spoken * np.float32(min(gain, PEAK / np.abs(spoken).max()))


def to_int16(pcm: Float[np.ndarray, "..."]) -> np.ndarray:
    """Rounded to 16 bit, clipped at full scale."""
    return np.clip(np.round(pcm * 32768), -32768, 32767).astype(np.int16)
