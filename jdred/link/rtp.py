"""RTP packets around Opus packets (RFC 3550, section 5.1; RFC 7587): headers written and read. Pure bytes."""

import struct
from typing import NamedTuple

from jdred.link.jitter import CLOCK_HZ
from jdred.opus.packet import duration_ms

PAYLOAD_TYPE = 111
"""Dynamic; what browsers choose for Opus."""
_HEADER = struct.Struct(">BBHII")
_VERSION = 2


class RtpError(ValueError):
    """The datagram is no RTP packet."""


class RtpPacket(NamedTuple):
    """What of an RTP packet matters here."""

    payload: bytes
    sequence: int
    """16 bits."""
    timestamp: int
    """32 bits, 48 kHz."""
    source: int
    """The sender's SSRC, 32 bits."""
    marker: bool = False
    """The first packet after silence that was not sent."""
    payload_type: int = PAYLOAD_TYPE
    """7 bits."""


def pack(packet: RtpPacket) -> bytes:
    """A datagram; numbers are taken modulo their size."""
    second = packet.marker << 7 | packet.payload_type & 0x7F
    numbers = packet.sequence % (1 << 16), packet.timestamp % (1 << 32), packet.source % (1 << 32)
    return _HEADER.pack(_VERSION << 6, second, *numbers) + packet.payload


def unpack(datagram: bytes) -> RtpPacket:
    """Take a datagram apart; contributing sources, header extension and padding are skipped.

    Raises:
      RtpError: another version, or lengths that do not fit.
    """
    if len(datagram) < _HEADER.size or datagram[0] >> 6 != _VERSION:
        raise RtpError(f"expected an RTP packet (version 2, at least 12 bytes), found {len(datagram)} bytes")
    first, second, sequence, timestamp, source = _HEADER.unpack_from(datagram)
    start, stop = _HEADER.size + 4 * (first & 0xF), len(datagram)
    if first & 0x10:
        if stop < start + 4:
            raise RtpError("the RTP packet ends inside its header extension")
        start += 4 + 4 * int.from_bytes(datagram[start + 2 : start + 4], "big")
    if first & 0x20:
        padding = datagram[-1]
        if padding == 0:
            raise RtpError("the RTP packet announces padding of no byte")
        stop -= padding
    if start > stop:
        raise RtpError("the RTP packet ends inside its header or its padding")
    return RtpPacket(datagram[start:stop], sequence, timestamp, source, bool(second & 0x80), second & 0x7F)


class Numbering:
    """Numbers of one sender's packets. They begin anywhere (RFC 3550, section 5.1); a new call begins elsewhere."""

    def __init__(self, sequence: int, timestamp: int, source: int):
        self.sequence, self.timestamp, self.source = sequence, timestamp, source

    def next(self, packet: bytes) -> RtpPacket:
        """The Opus packet that follows on the last one. Raises ``PacketError`` where it is none."""
        samples = round(duration_ms(packet) * CLOCK_HZ / 1000)
        numbered = RtpPacket(packet, self.sequence % (1 << 16), self.timestamp % (1 << 32), self.source)
        self.sequence, self.timestamp = self.sequence + 1, self.timestamp + samples
        return numbered
