"""The outside of an Opus packet (RFC 6716, sections 3.1 and 3.2): table of contents, frames, padding. Pure bytes."""

from typing import NamedTuple

MAX_FRAME_BYTES = 1275
MAX_PACKET_MS = 120

_SILK_MS = (10.0, 20.0, 40.0, 60.0)
_HYBRID_MS = (10.0, 20.0)
_CELT_MS = (2.5, 5.0, 10.0, 20.0)
_FIRST_HYBRID, _FIRST_CELT = 12, 16
"""Configuration numbers: SILK below the first, CELT from the second on."""


_SILK_BANDWIDTHS = ("narrowband", "mediumband", "wideband")
_HYBRID_BANDWIDTHS = ("superwideband", "fullband")
_CELT_BANDWIDTHS = ("narrowband", "wideband", "superwideband", "fullband")


class PacketError(ValueError):
    """The bytes are not a valid Opus packet, or its padding is not a valid list of extensions."""


class Packet(NamedTuple):
    """An Opus packet taken apart."""

    toc: int
    """First byte with its two code bits cleared: configuration and stereo flag."""
    frames: tuple[bytes, ...]
    """1 .. 48 coded frames, each 0 .. 1275 bytes."""
    vbr: bool
    """Whether the frames' lengths are written down (codes 2 and 3); if not, all are equal."""
    padding: bytes
    """The padding area, where extensions live; empty where there is none."""


def frame_ms(toc: int) -> float:
    """Duration of one frame in milliseconds (2.5 .. 60) by the first byte of a packet."""
    config = toc >> 3
    if config < _FIRST_HYBRID:
        return _SILK_MS[config % 4]
    return _HYBRID_MS[config % 2] if config < _FIRST_CELT else _CELT_MS[config % 4]


def mode_and_bandwidth(toc: int) -> tuple[str, str]:
    """``("SILK", "wideband")`` and the like (RFC 6716, table 2) by the first byte of a packet."""
    config = toc >> 3
    if config < _FIRST_HYBRID:
        return "SILK", _SILK_BANDWIDTHS[config // 4]
    if config < _FIRST_CELT:
        return "hybrid", _HYBRID_BANDWIDTHS[config % 4 // 2]
    return "CELT", _CELT_BANDWIDTHS[config % 16 // 4]


def parse(packet: bytes) -> Packet:
    """Take a packet apart.

    Raises:
      PacketError: the bytes break a rule of RFC 6716, section 3.4.
    """
    if not packet:
        raise PacketError("an Opus packet has at least one byte, got none")
    toc, code, body = packet[0] & 0xFC, packet[0] & 3, bytes(packet[1:])
    if code == 0:
        frames, vbr, padding = (body,), False, b""
    elif code == 1:
        frames, vbr, padding = _equal_frames(body, 2), False, b""
    elif code == 2:
        frames, vbr, padding = _laced_frames(body, 2), True, b""
    else:
        frames, vbr, padding = _parse_code_3(body)
    longest = max(map(len, frames))
    if longest > MAX_FRAME_BYTES:
        raise PacketError(f"an Opus frame has at most {MAX_FRAME_BYTES} bytes, found {longest}")
    if len(frames) * frame_ms(toc) > MAX_PACKET_MS:
        raise PacketError(f"an Opus packet lasts at most {MAX_PACKET_MS} ms, found {len(frames) * frame_ms(toc):g} ms")
    return Packet(toc, frames, vbr, padding)


def build(packet: Packet) -> bytes:
    """Put a packet together, in the shortest form that holds it (codes 0 .. 2 where possible).

    Raises:
      PacketError: no frame, or unequal frames without ``vbr``.
    """
    frames = packet.frames
    if not frames or (not packet.vbr and len({len(frame) for frame in frames}) > 1):
        raise PacketError("a packet needs at least one frame, and equal lengths where vbr is off")
    vbr = packet.vbr and len(frames) > 1
    lengths = b"".join(_length_bytes(len(frame)) for frame in frames[:-1]) if vbr else b""
    body = lengths + b"".join(frames)
    if not packet.padding and len(frames) <= 2:
        code = (2 if vbr else 1) if len(frames) == 2 else 0
        return bytes([packet.toc | code]) + body
    count = len(frames) | (0x80 if vbr else 0) | (0x40 if packet.padding else 0)
    pad_length = _padding_length_bytes(len(packet.padding)) if packet.padding else b""
    return bytes([packet.toc | 3, count]) + pad_length + body + packet.padding


def duration_ms(packet: bytes) -> float:
    """Duration of the audio in a packet, in milliseconds. Raises ``PacketError``."""
    parts = parse(packet)
    return len(parts.frames) * frame_ms(parts.toc)


def has_lbrr(packet: bytes) -> bool:
    """Whether a packet carries a low-rate copy of the audio before it (RFC 6716, 4.2.4). False for invalid packets."""
    try:
        parts = parse(packet)
    except PacketError:
        return False
    first = parts.frames[0]
    if parts.toc >> 3 >= _FIRST_CELT or not first:
        return False
    # Per channel: one voice activity flag for each 20 ms, then the LBRR flag.
    flags = max(1, int(frame_ms(parts.toc)) // 20) + 1
    stereo = bool(parts.toc & 4)
    middle = first[0] >> (8 - flags) & 1
    side = first[0] >> (8 - 2 * flags) & 1 if stereo else 0
    return bool(middle or side)


def _equal_frames(data: bytes, count: int) -> tuple[bytes, ...]:
    size, rest = divmod(len(data), count)
    if rest:
        raise PacketError(f"{len(data)} bytes do not make {count} equal frames")
    return tuple(data[k * size : (k + 1) * size] for k in range(count))


def _laced_frames(data: bytes, count: int) -> tuple[bytes, ...]:
    """Frames whose lengths, all but the last one's, stand in front (one or two bytes each)."""
    position, lengths = 0, []
    for _ in range(count - 1):
        wide = position < len(data) and data[position] >= 252
        if position + wide >= len(data):
            raise PacketError("the packet ends inside its frame lengths")
        lengths.append(data[position] + (4 * data[position + 1] if wide else 0))
        position += 1 + wide
    lengths.append(len(data) - position - sum(lengths))
    if lengths[-1] < 0:
        raise PacketError("the frames of the packet are longer than the packet")
    frames = []
    for length in lengths:
        frames.append(data[position : position + length])
        position += length
    return tuple(frames)


def _parse_code_3(body: bytes) -> tuple[tuple[bytes, ...], bool, bytes]:
    if not body or not body[0] & 0x3F:
        raise PacketError("a code 3 packet needs a count of at least one frame")
    count, vbr, position, padding = body[0] & 0x3F, bool(body[0] & 0x80), 1, 0
    more = bool(body[0] & 0x40)
    while more:
        if position >= len(body):
            raise PacketError("the packet ends inside its padding length")
        more = body[position] == 255
        padding += 254 if more else body[position]
        position += 1
    end = len(body) - padding
    if end < position:
        raise PacketError(f"{padding} bytes of padding do not fit into the packet")
    frames = (_laced_frames if vbr else _equal_frames)(body[position:end], count)
    return frames, vbr, body[end:]


def _length_bytes(length: int) -> bytes:
    if length < 252:
        return bytes([length])
    low = 252 + length % 4
    return bytes([low, (length - low) // 4])


def _padding_length_bytes(length: int) -> bytes:
    # 255 stands for 254 bytes and goes on, so a full multiple of 254 ends in 254 rather than in 255, 0.
    full = (length - 1) // 254
    return b"\xff" * full + bytes([length - 254 * full])
