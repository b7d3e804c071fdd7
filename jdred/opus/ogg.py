"""Ogg Opus files (RFC 3533 and RFC 7845): packets in, bytes out, and back. Pure bytes.

One logical stream, mono or stereo (mapping family 0). A packet is kept bit for bit, so its padding, and the redundancy
in it, survive; every player skips what it does not know there.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jdred.opus.packet import PacketError, duration_ms

CLOCK_HZ = 48_000
"""Granule positions and the pre-skip count samples at this rate, whatever the codec runs at."""
VENDOR = "jdred"
_MAX_SEGMENTS, _SEGMENT = 255, 255
_PAGE_SAMPLES = CLOCK_HZ
"""A page is closed when it holds a second (RFC 7845, section 6)."""
_HEADER = struct.Struct("<4sBBqIIIB")
_HEAD = struct.Struct("<8sBBHIhB")
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_REVERSED = bytes(int(f"{octet:08b}"[::-1], 2) for octet in range(256))


class OggError(ValueError):
    """The bytes are not an Ogg Opus file that this reader takes."""


class Head(NamedTuple):
    """The identification header (RFC 7845, section 5.1)."""

    channels: int = 1
    pre_skip: int = 0
    """Decoded samples at 48 kHz to drop at the start: the codec's delay."""
    input_rate_hz: int = 16_000
    """Of what was encoded; for information."""
    gain_q8: int = 0
    """To apply to the decoded sound, dB times 256."""


class OpusFile(NamedTuple):
    """What a file holds."""

    head: Head
    packets: tuple[bytes, ...]
    samples: int
    """Length of the sound at 48 kHz, pre-skip and what is cut at the end taken off."""


def write(packets: Sequence[bytes], head: Head, samples: int, serial: int = 1) -> bytes:
    """An Ogg Opus file.

    Args:
      packets: valid Opus packets in order.
      samples: length of the sound at 48 kHz behind the pre-skip; what the packets hold beyond it is not played.
      serial: of the logical stream.
    Raises:
      PacketError: not an Opus packet.
      OggError: no packet, one of more than 65 kB, or packets that hold less than ``samples`` say.
    """
    durations = [_samples(packet) for packet in packets]
    end = head.pre_skip + samples
    if not packets or not sum(durations) - (durations[-1] if durations else 0) <= end <= sum(durations):
        raise OggError(f"expected packets that hold {end} samples, the last one the end; found {sum(durations)}")
    tags = b"OpusTags" + _counted(VENDOR.encode()) + struct.pack("<I", 0)
    opus_head = _HEAD.pack(b"OpusHead", 1, head.channels, head.pre_skip, head.input_rate_hz, head.gain_q8, 0)
    pages = [_page([opus_head], 0, serial, 0, _FIRST), _page([tags], 0, serial, 1, 0)]
    position = 0
    for group in _pages(packets, durations):
        position += sum(durations[number] for number in group)
        last = group[-1] == len(packets) - 1
        content = [packets[number] for number in group]
        pages.append(_page(content, end if last else position, serial, len(pages), _LAST if last else 0))
    return b"".join(pages)


def read(data: bytes) -> OpusFile:
    """Take a file apart.

    Pages that are damaged are skipped, as are those of other streams than the first; a packet of which a part is
    missing is dropped.

    Raises:
      OggError: not Ogg, not Opus, more than two channels, or no audio.
    """
    head, serial, packets, started, open_packet = None, None, [], 0, None
    end, first_end, first_samples = 0, None, 0
    for page in _read_pages(data):
        if serial is None:
            serial = page.serial
        if page.serial != serial:
            continue
        whole, open_packet = _whole_packets(page, open_packet)
        for packet in whole:
            started += 1
            if started == 1:
                head = _parse_head(packet)
            elif started > 2:
                packets.append(packet)
        if page.position > 0 and packets:
            end = page.position
            if first_end is None:
                first_end, first_samples = end, sum(_samples_or_none(packet) for packet in packets)
    if head is None or not packets:
        raise OggError("expected an Ogg Opus file with audio, found " + ("none" if head else "no Ogg page"))
    # A stream that was cut out of a longer one starts at a position above zero (RFC 7845, section 4.5).
    start = max(0, first_end - first_samples) if first_end is not None else 0
    held = sum(map(_samples_or_none, packets))
    return OpusFile(head, tuple(packets), max(0, min(end - start if end else held, held) - head.pre_skip))


class _Page(NamedTuple):
    flags: int
    position: int
    serial: int
    number: int
    lacing: bytes
    body: bytes


def _read_pages(data: bytes) -> Iterator[_Page]:
    place = data.find(b"OggS")
    while 0 <= place <= len(data) - _HEADER.size:
        _, version, flags, position, serial, number, crc, segments = _HEADER.unpack_from(data, place)
        start = place + _HEADER.size + segments
        lacing = data[place + _HEADER.size : start]
        stop = start + sum(lacing)
        page = data[place:stop]
        # The checksum covers the page with zeros in its own place.
        if version == 0 and len(page) == stop - place and _crc(page[:22] + bytes(4) + page[26:]) == crc:
            yield _Page(flags, position, serial, number, lacing, data[start:stop])
            place = data.find(b"OggS", stop)
        else:
            place = data.find(b"OggS", place + 1)


def _whole_packets(page: _Page, open_packet: tuple[int, bytes] | None) -> tuple[list[bytes], tuple[int, bytes] | None]:
    """Packets that end in the page, and the one that goes on in the next with the number of that page."""
    continued = bool(page.flags & _CONTINUED)
    follows = continued and open_packet is not None and open_packet[0] == page.number
    packet, dropped = open_packet[1] if follows else b"", continued and not follows
    whole, place, inside = [], 0, False
    for length in page.lacing:
        packet += page.body[place : place + length]
        place += length
        inside = length == _SEGMENT
        if not inside:
            if not dropped:
                whole.append(packet)
            packet, dropped = b"", False
    return whole, (page.number + 1, packet) if inside and not dropped else None


def _parse_head(packet: bytes) -> Head:
    if len(packet) < _HEAD.size or packet[:8] != b"OpusHead":
        raise OggError("expected an Ogg file of Opus, found another codec")
    _, version, channels, pre_skip, rate, gain, family = _HEAD.unpack_from(packet)
    if version >> 4:
        raise OggError(f"expected version 0 .. 15 of the Opus header, found {version}")
    if family not in (0, 1) or not 1 <= channels <= 2:
        raise OggError(f"expected one or two channels (mapping family 0), found {channels} in family {family}")
    return Head(channels, pre_skip, rate, gain)


def _pages(packets: Sequence[bytes], durations: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of the packets of each page: about a second, no packet across two pages."""
    group, segments, length = [], 0, 0
    for number, packet in enumerate(packets):
        needed = len(packet) // _SEGMENT + 1
        if needed > _MAX_SEGMENTS:
            raise OggError(f"expected packets of less than {_MAX_SEGMENTS * _SEGMENT} bytes, found {len(packet)}")
        if group and (segments + needed > _MAX_SEGMENTS or length >= _PAGE_SAMPLES):
            yield group
            group, segments, length = [], 0, 0
        group.append(number)
        segments, length = segments + needed, length + durations[number]
    yield group


def _page(packets: Sequence[bytes], position: int, serial: int, number: int, flags: int) -> bytes:
    lacing = b"".join(b"\xff" * (len(packet) // _SEGMENT) + bytes([len(packet) % _SEGMENT]) for packet in packets)
    body = lacing + b"".join(packets)
    empty = _HEADER.pack(b"OggS", 0, flags, position, serial, number, 0, len(lacing))
    return empty[:22] + struct.pack("<I", _crc(empty + body)) + empty[26:] + body


def _crc(page: bytes) -> int:
    """CRC-32 with polynomial 0x04C11DB7, most significant bit first, from 0: zlib's, seen in a mirror."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _samples(packet: bytes) -> int:
    return round(duration_ms(packet) * CLOCK_HZ / 1000)


def _samples_or_none(packet: bytes) -> int:
    try:
        return _samples(packet)
    except PacketError:
        return 0


def _counted(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text
