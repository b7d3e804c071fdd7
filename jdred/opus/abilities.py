"""What the libopus at hand can do, for ``jdred doctor``."""

from typing import NamedTuple

import numpy as np

from jdred.config import PACKET_SAMPLES, SAMPLE_RATE_HZ
from jdred.opus.codec import Decoder, Encoder
from jdred.opus.library import OpusError, library

_SET_DRED_DURATION = 4050


class Description(NamedTuple):
    """A libopus and its optional parts. jdred needs none of them: they are peers to compare with."""

    version: str
    path: str
    source: str
    """Who pointed at the library: the environment variable, ``system`` or ``av wheel``."""
    dred: bool
    """libopus's own DRED is compiled in."""
    deep_plc: bool
    """A decoder of complexity 5 and up conceals with a network."""
    osce: bool
    """A decoder of complexity 6 and up enhances decoded speech with a network (LACE, NoLACE)."""


def describe() -> Description:
    """Look at the library by trying it (about 20 ms). Raises ``OpusError`` where there is none."""
    lib = library()
    packets = _hum()
    played = {complexity: _play(packets, complexity) for complexity in (0, 5, 7)}
    return Description(
        version=lib.version,
        path=lib.path,
        source=lib.source,
        dred=_has_dred(),
        deep_plc=_differ(played[0].concealed, played[5].concealed),
        osce=_differ(played[0].decoded, played[7].decoded),
    )


class _Played(NamedTuple):
    decoded: np.ndarray
    concealed: np.ndarray


def _hum(packets: int = 10) -> list[bytes]:
    """Packets of a voice-like signal: harmonics of 125 Hz that decay towards high frequencies."""
    time = np.arange(packets * PACKET_SAMPLES) / SAMPLE_RATE_HZ
    pcm = sum(0.2 / k * np.sin(2 * np.pi * 125 * k * time + k * k) for k in range(1, 30))
    with Encoder() as encoder:
        return [encoder.encode(row) for row in pcm.reshape(packets, PACKET_SAMPLES)]


def _play(packets: list[bytes], complexity: int) -> _Played:
    try:
        with Decoder(complexity=complexity) as decoder:
            decoded = np.concatenate([decoder.decode(packet) for packet in packets])
            return _Played(decoded, decoder.conceal(PACKET_SAMPLES))
    except OpusError:  # A decoder too old to know a complexity.
        return _Played(np.zeros(0), np.zeros(0))


def _differ(plain: np.ndarray, other: np.ndarray) -> bool:
    return len(other) > 0 and not np.array_equal(plain, other)


def _has_dred() -> bool:
    with Encoder() as encoder:
        return encoder.accepts(_SET_DRED_DURATION, 0)
