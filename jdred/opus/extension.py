"""Extensions in the padding of Opus packets (draft-ietf-mlcodec-opus-extension): bytes that an old decoder skips.

The padding of a packet is a list of entries. An entry starts with the byte ``(id << 1) | flag``:

====== ==== ===============================================================================================
id     flag meaning
====== ==== ===============================================================================================
0      0    the rest is plain padding
0      1    one byte of plain padding
1      0    what follows belongs to the next frame
1      1    what follows belongs to the frame so many further as the next byte says (0: no change)
2      any  the entries since the last change of frame repeat for every later frame, only payloads follow; with
            flag 0 the very last long one has no length and the list moves on by a frame
3-31   any  a short extension: ``flag`` bytes of payload
32-127 0    a long extension that fills the rest of the padding
32-127 1    a long extension with its length before it, a sum of bytes where 255 goes on
====== ==== ===============================================================================================
"""

from collections.abc import Iterator
from typing import NamedTuple

from jdred.opus import packet as opus_packet
from jdred.opus.packet import Packet, PacketError

_SEPARATOR, _REPEAT, _FIRST_SHORT, _FIRST_LONG, _LAST_ID = 1, 2, 3, 32, 127


class Extension(NamedTuple):
    """One extension of a packet."""

    frame: int
    """Index of the frame it belongs to."""
    id: int
    """3 .. 127."""
    payload: bytes
    offset: int
    """Where the payload starts in the packet."""


class _Entry(NamedTuple):
    """Where an extension, or the mark ``_REPEAT``, stands in the padding."""

    frame: int
    id: int
    head: int
    """Start of the entry with its id and length bytes."""
    start: int
    stop: int
    """The payload is ``padding[start:stop]``."""


def extensions(packet: bytes) -> list[Extension]:
    """All extensions of a packet in the order in which they stand. Never raises.

    Nothing for bytes that are no Opus packet; where the padding breaks the format, what stands before the fault (as
    libopus reads it).
    """
    found = []
    try:
        parts = opus_packet.parse(packet)
        base = len(packet) - len(parts.padding)
        for entry in _entries(parts.padding, len(parts.frames)):
            if entry.id != _REPEAT:
                payload = parts.padding[entry.start : entry.stop]
                found.append(Extension(entry.frame, entry.id, payload, base + entry.start))
    except PacketError:
        pass
    return found


def find(packet: bytes, extension_id: int) -> list[tuple[int, bytes]]:
    """``(frame, payload)`` of every extension with that id, in the order in which they stand. Never raises."""
    return [(each.frame, each.payload) for each in extensions(packet) if each.id == extension_id]


def attach(packet: bytes, extension_id: int, payload: bytes) -> bytes:
    """The packet with one more extension, on its first frame; audio, padding and other extensions stay.

    Costs 3 bytes beside the payload for a packet of one frame without padding, one more for every 254 of payload.

    Args:
      packet: a valid Opus packet of any code.
      extension_id: 3 .. 31 (payload of 0 or 1 byte) or 32 .. 127 (any length).
    Raises:
      PacketError: an invalid packet, or one whose padding is not a valid list of extensions.
      ValueError: an id or a length that the format does not have.
    """
    if not _FIRST_SHORT <= extension_id <= _LAST_ID:
        raise ValueError(f"extension id {extension_id} is outside {_FIRST_SHORT} .. {_LAST_ID}")
    if extension_id < _FIRST_LONG and len(payload) > 1:
        raise ValueError(f"extension id {extension_id} carries at most 1 byte, got {len(payload)}")
    parts = opus_packet.parse(packet)
    rest = _spelled_out(parts)
    # In front, so that whatever stood there keeps its bytes; without a length where nothing follows.
    padding = _entry_bytes(extension_id, bytes(payload), sized=bool(rest)) + rest
    return opus_packet.build(parts._replace(padding=padding))


def strip(packet: bytes, extension_id: int) -> bytes:
    """The packet without any extension of that id; ``strip(attach(p, id, x), id)`` plays as ``p`` and mostly equals it.

    It equals ``p`` unless ``p`` has the id itself, repeats extensions (id 2), or is written longer than needed (libopus
    at constant bit rate announces padding of length 0).

    Raises:
      PacketError: an invalid packet, or one whose padding is not a valid list of extensions.
    """
    parts = opus_packet.parse(packet)
    if all(entry.id != extension_id for entry in _entries(parts.padding, len(parts.frames))):
        return bytes(packet)
    kept = _spelled_out(parts)
    for entry in reversed(list(_entries(kept, len(parts.frames)))):
        if entry.id == extension_id:
            kept = kept[: entry.head] + kept[entry.stop :]
    return opus_packet.build(parts._replace(padding=kept))


def _entries(padding: bytes, frames: int) -> Iterator[_Entry]:
    """Walk through a padding area. Raises ``PacketError`` on reaching a fault."""
    position, frame, heads = 0, 0, []
    while position < len(padding):
        first = padding[position]
        number, flag = first >> 1, first & 1
        start, stop = _payload_span(padding, position + 1, first)
        if number == _SEPARATOR:
            advance = padding[start] if flag else 1
            frame += advance
            heads = [] if advance else heads
        elif number == _REPEAT:
            yield _Entry(frame, number, position, start, stop)
            stop = yield from _repeated(padding, stop, range(frame + 1, frames), heads, open_end=not flag)
            heads = []
            frame += not flag
            if frame == frames:
                return
        elif number >= _FIRST_SHORT:
            heads.append(first)
            yield _Entry(frame, number, position, start, stop)
        if frame >= frames:
            raise PacketError(f"an extension for frame {frame} in a packet of {frames} frames")
        position = stop


def _repeated(padding: bytes, position: int, frames: range, heads: list[int], open_end: bool) -> Iterator[_Entry]:
    """The payloads behind a repeat entry; returns the position after them.

    With ``open_end`` the last long one runs on until only the payloads of the short ones after it are left.
    """
    last_long = max((k for k, head in enumerate(heads) if head >> 1 >= _FIRST_LONG), default=-1)
    for frame in frames:
        for k, head in enumerate(heads):
            reserved = 0
            if open_end and frame == frames[-1] and k == last_long:
                head &= ~1
                reserved = sum(later & 1 for later in heads[k + 1 :])
            start, stop = _payload_span(padding, position, head, reserved)
            yield _Entry(frame, head >> 1, position, start, stop)
            position = stop
    return position


def _payload_span(padding: bytes, position: int, first: int, reserved: int = 0) -> tuple[int, int]:
    """Start and end of the payload of an entry whose first byte is ``first``; ``position`` is the byte after it."""
    number, flag = first >> 1, first & 1
    length = 0
    if number >= _FIRST_LONG and flag:
        more = True
        while more:
            if position >= len(padding):
                raise PacketError("the padding ends inside the length of an extension")
            length += padding[position]
            more = padding[position] == 255
            position += 1
    elif number >= _FIRST_LONG or first == 0:
        length = len(padding) - reserved - position
    elif number not in (0, _REPEAT):
        length = flag
    if length < 0 or position + length > len(padding):
        raise PacketError("an extension is longer than the padding that holds it")
    return position, position + length


def _entry_bytes(extension_id: int, payload: bytes, sized: bool = True) -> bytes:
    if extension_id < _FIRST_LONG:
        return bytes([extension_id << 1 | len(payload)]) + payload
    length = b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255]) if sized else b""
    return bytes([extension_id << 1 | sized]) + length + payload


def _spelled_out(parts: Packet) -> bytes:
    """The padding of a packet with repeats written in full, so that an entry can come or go; else unchanged."""
    entries = list(_entries(parts.padding, len(parts.frames)))
    if all(entry.id != _REPEAT for entry in entries):
        return parts.padding
    out, frame = b"", 0
    for entry in sorted((e for e in entries if e.id != _REPEAT), key=lambda e: e.frame):
        out += bytes([_SEPARATOR << 1 | 1, entry.frame - frame]) if entry.frame > frame else b""
        out += _entry_bytes(entry.id, parts.padding[entry.start : entry.stop])
        frame = entry.frame
    return out
