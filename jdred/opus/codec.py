"""Encoder and decoder of libopus as Python objects: float32 PCM in [-1, 1], mono, one packet at a time.

An object belongs to one stream and is not to be shared between threads. It frees its memory with ``close``, at the end
of a ``with`` block, or when it is collected.
"""

import ctypes
import weakref
from ctypes import POINTER, byref, c_float, c_int, c_int32
from types import TracebackType
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Shaped

from jdred.config import SAMPLE_RATE_HZ
from jdred.opus.library import OpusError, library
from jdred.opus.packet import MAX_FRAME_BYTES, MAX_PACKET_MS, duration_ms, has_lbrr

__all__ = ["Decoder", "Encoder", "OpusError", "duration_ms", "has_lbrr"]

SAMPLE_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
ENCODER_MS = (10, 20, 40, 60)
APPLICATIONS = {"voip": 2048, "audio": 2049, "restricted_lowdelay": 2051}
BANDWIDTHS = {
    "auto": -1000,
    "narrowband": 1101,
    "mediumband": 1102,
    "wideband": 1103,
    "superwideband": 1104,
    "fullband": 1105,
}
SIGNALS = {"auto": -1000, "voice": 3001, "music": 3002}
_BITRATE_RANGE_BPS = (500, 512_000)

_SET_BITRATE, _SET_VBR, _SET_BANDWIDTH, _SET_COMPLEXITY, _SET_LBRR = 4002, 4006, 4008, 4010, 4012
_SET_LOSS_PERCENT, _SET_DTX, _SET_SIGNAL, _GET_LOOKAHEAD, _RESET = 4014, 4016, 4024, 4027, 4028
_MAX_PACKET_BYTES = 6 * MAX_FRAME_BYTES

Codec = TypeVar("Codec", bound="_Codec")


class _Codec:
    """What both directions share: a C object, its control calls and its end."""

    _kind: str

    def __init__(self, sample_rate_hz: int, *create_arguments: int):
        if sample_rate_hz not in SAMPLE_RATES_HZ:
            raise ValueError(f"Opus works at {SAMPLE_RATES_HZ} Hz, got {sample_rate_hz}")
        self.sample_rate_hz = sample_rate_hz
        self._library = library()
        functions, error = self._library.functions, c_int()
        handle = getattr(functions, f"opus_{self._kind}_create")(sample_rate_hz, 1, *create_arguments, byref(error))
        self._library.check(error.value, f"creating an Opus {self._kind}")
        self._handle = handle
        self._control = getattr(functions, f"opus_{self._kind}_ctl")
        # finalize rather than __del__: runs once, also at the end of the interpreter, while ctypes still stands.
        self._finalizer = weakref.finalize(self, getattr(functions, f"opus_{self._kind}_destroy"), handle)

    def close(self) -> None:
        """Free the memory of libopus; the object is of no use afterwards. May be called twice."""
        self._finalizer()

    def __enter__(self: Codec) -> Codec:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def reset(self) -> None:
        """Forget the stream so far; settings stay."""
        self._library.check(self._control(self._open(), _RESET), f"resetting the Opus {self._kind}")

    def accepts(self, request: int, value: int) -> bool:
        """Set by libopus's own request number and say whether this build knows it."""
        return self._control(self._open(), request, c_int(value)) >= 0

    def _open(self) -> int:
        if not self._finalizer.alive:
            raise OpusError(f"this Opus {self._kind} is closed")
        return self._handle

    def _set(self, request: int, value: int, what: str) -> None:
        self._library.check(self._control(self._open(), request, c_int(value)), f"setting {what} to {value}")


class Encoder(_Codec):
    """PCM to Opus packets.

    Args:
      sample_rate_hz: 8000, 12000, 16000, 24000 or 48000.
      bitrate_bps: 500 .. 512000, LBRR included.
      lbrr: a low-rate copy of the audio before goes into a packet where the encoder finds it worth while.
      loss_percent: 0 .. 100, the loss to expect; LBRR needs it above 0.
      bandwidth: ``auto``, ``narrowband`` .. ``fullband``.
      complexity: 0 .. 10.
      application: ``voip``, ``audio`` or ``restricted_lowdelay`` (CELT only).
      vbr: packets as long as they need to be; else all of one length.
      dtx: almost empty packets in silence.
      signal: ``auto``, ``voice`` or ``music``.
    Raises:
      ValueError: an argument out of range.
      OpusError: no libopus, or it refuses.
    """

    _kind = "encoder"

    def __init__(
        self,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        bitrate_bps: int = 24_000,
        lbrr: bool = False,
        loss_percent: int = 0,
        bandwidth: str = "wideband",
        complexity: int = 10,
        application: str = "voip",
        vbr: bool = True,
        dtx: bool = False,
        signal: str = "voice",
    ):
        _check_range("complexity", complexity, 0, 10)
        settings = (
            (_SET_BANDWIDTH, _choose("bandwidth", bandwidth, BANDWIDTHS), "bandwidth"),
            (_SET_COMPLEXITY, complexity, "complexity"),
            (_SET_VBR, int(vbr), "VBR"),
            (_SET_DTX, int(dtx), "DTX"),
            (_SET_SIGNAL, _choose("signal", signal, SIGNALS), "signal"),
        )
        super().__init__(sample_rate_hz, _choose("application", application, APPLICATIONS))
        for request, value, what in settings:
            self._set(request, value, what)
        self.adapt(bitrate_bps, lbrr, loss_percent)
        self._buffer = ctypes.create_string_buffer(_MAX_PACKET_BYTES)

    def adapt(self, bitrate_bps: int, lbrr: bool, loss_percent: int) -> None:
        """Change what a network changes, between packets; arguments and errors as above."""
        _check_range("bitrate_bps", bitrate_bps, *_BITRATE_RANGE_BPS)
        _check_range("loss_percent", loss_percent, 0, 100)
        self._set(_SET_BITRATE, bitrate_bps, "bitrate")
        self._set(_SET_LBRR, int(lbrr), "LBRR")
        self._set(_SET_LOSS_PERCENT, loss_percent, "expected loss")

    @property
    def lookahead(self) -> int:
        """Samples by which the decoded audio comes late; drop as many to align it with the input."""
        value = c_int32()
        self._library.check(self._control(self._open(), _GET_LOOKAHEAD, byref(value)), "asking for the lookahead")
        return value.value

    def encode(self, pcm: Shaped[np.ndarray, "..."]) -> bytes:
        """Encode one packet.

        Args:
          pcm: 10, 20, 40 or 60 ms of mono audio: floats in [-1, 1], or int16.
        Raises:
          ValueError: another type, shape or length, or samples that are not finite.
        """
        pcm = _as_float(pcm)
        if len(pcm) * 1000 not in [ms * self.sample_rate_hz for ms in ENCODER_MS]:
            raise ValueError(f"a packet holds {ENCODER_MS} ms at {self.sample_rate_hz} Hz, got {len(pcm)} samples")
        length = self._library.functions.opus_encode_float(
            self._open(), _pointer(pcm), len(pcm), self._buffer, len(self._buffer)
        )
        return self._buffer.raw[: self._library.check(length, "encoding")]


class Decoder(_Codec):
    """Opus packets to PCM.

    Args:
      sample_rate_hz: 8000, 12000, 16000, 24000 or 48000; any packet decodes at any of them.
      complexity: 0 .. 10. Where libopus is built with its networks, 5 and up conceal by deep PLC and 6 and up enhance
        the decoded speech.
    Raises:
      ValueError: an argument out of range.
      OpusError: no libopus, or it refuses.
    """

    _kind = "decoder"

    def __init__(self, sample_rate_hz: int = SAMPLE_RATE_HZ, complexity: int = 0):
        _check_range("complexity", complexity, 0, 10)
        super().__init__(sample_rate_hz)
        if complexity:  # Decoders before libopus 1.5 know no complexity.
            self._set(_SET_COMPLEXITY, complexity, "decoder complexity")

    def decode(self, packet: bytes) -> Float[np.ndarray, "samples"]:
        """The audio of a packet that arrived, float32 in [-1, 1]. Raises ``PacketError`` or ``OpusError``."""
        return self._decode(packet, self._samples(packet), lbrr=False)

    def decode_lbrr(self, next_packet: bytes, samples: int | None = None) -> Float[np.ndarray, "samples"]:
        """The audio of the lost packet before ``next_packet``, which itself is to be decoded afterwards.

        From the LBRR of ``next_packet`` if it has any (``has_lbrr``), else concealed.

        Args:
          samples: how much was lost, in whole 2.5 ms; by default as much as ``next_packet`` holds.
        """
        expected = self._samples(next_packet)
        return self._decode(next_packet, expected if samples is None else self._missing(samples), lbrr=True)

    def conceal(self, samples: int) -> Float[np.ndarray, "samples"]:
        """libopus's own guess at audio that was lost: ``samples`` in whole 2.5 ms, at most 120 ms."""
        return self._decode(None, self._missing(samples), lbrr=False)

    def _samples(self, packet: bytes) -> int:
        return round(duration_ms(packet) * self.sample_rate_hz / 1000)

    def _missing(self, samples: int) -> int:
        step = self.sample_rate_hz // 400
        if samples % step or not 0 < samples <= MAX_PACKET_MS * self.sample_rate_hz // 1000:
            raise ValueError(f"a loss lasts a whole number of 2.5 ms ({step} samples) up to 120 ms, got {samples}")
        return samples

    def _decode(self, packet: bytes | None, samples: int, lbrr: bool) -> Float[np.ndarray, "samples"]:
        pcm = np.zeros(samples, np.float32)
        size = len(packet) if packet is not None else 0
        result = self._library.functions.opus_decode_float(
            self._open(), packet, size, _pointer(pcm), samples, int(lbrr)
        )
        count = self._library.check(result, "decoding a packet" if packet is not None else "concealing a loss")
        # libopus overshoots a little on loud speech.
        return np.clip(pcm[:count], -1, 1)


def _as_float(pcm: np.ndarray) -> np.ndarray:
    pcm = np.asarray(pcm)
    if pcm.ndim != 1:
        raise ValueError(f"expected mono PCM of shape [samples], got {list(pcm.shape)}")
    if pcm.dtype == np.int16:
        return pcm.astype(np.float32) / 32768
    if not np.issubdtype(pcm.dtype, np.floating):
        raise ValueError(f"expected PCM as floats in [-1, 1] or as int16, got {pcm.dtype}")
    pcm = np.ascontiguousarray(pcm, np.float32)
    if not np.isfinite(pcm).all():
        raise ValueError("the PCM holds samples that are not finite")
    return pcm


def _pointer(pcm: np.ndarray):
    return pcm.ctypes.data_as(POINTER(c_float))


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be within {low} .. {high}, got {value}")


def _choose(name: str, value: str, choices: dict[str, int]) -> int:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]
