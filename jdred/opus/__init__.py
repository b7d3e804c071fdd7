"""The real Opus: libopus through ctypes, and the padding of its packets, where redundancy travels."""

from jdred.opus.abilities import Description, describe
from jdred.opus.codec import Decoder, Encoder
from jdred.opus.library import Library, OpusError, library
from jdred.opus.marker import attach_redundancy, find_redundancy
from jdred.opus.packet import PacketError, duration_ms, has_lbrr

__all__ = [
    "Decoder",
    "Description",
    "Encoder",
    "Library",
    "OpusError",
    "PacketError",
    "attach_redundancy",
    "describe",
    "duration_ms",
    "find_redundancy",
    "has_lbrr",
    "library",
]
