"""What is in a packet: the outside of its Opus frames, its LBRR flag, and all that its redundancy says of itself."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jdred.bitstream.codec import PayloadCodec
from jdred.bitstream.payload import Payload
from jdred.link.redundancy import OFFSET_MS
from jdred.link.sender import CHUNK_MS
from jdred.opus import extension
from jdred.opus import packet as opus_packet
from jdred.opus.marker import find_redundancy


class RedundancyInfo(NamedTuple):
    """A payload that could be read."""

    bytes: int
    """Of the payload, framing left out."""
    from_ms: float
    """Oldest edge of what is described, counted from the start of the packet; the past is negative."""
    to_ms: float
    """Newest edge."""
    chunks: int
    """Of 40 ms each."""
    q0: int
    """Level of the newest chunk, 0 (finest) .. 15."""
    slope: int
    """Index 0 .. 7: how fast levels rise with age."""
    qmax: int
    """The coarsest level."""
    levels: tuple[int, ...]
    """Of each chunk, newest first."""
    header_bits: float
    state_bits: float
    chunk_bits: tuple[float, ...]
    """Of each chunk, newest first."""


class PacketInfo(NamedTuple):
    """One packet of a stream."""

    number: int
    time_ms: float
    """Where it starts in the stream."""
    valid: bool
    """Whether the bytes are an Opus packet; if not, what follows is empty."""
    bytes: int
    toc: int
    mode: str
    """``SILK``, ``hybrid`` or ``CELT``."""
    bandwidth: str
    channels: int
    frames: int
    duration_ms: float
    kbps: float
    lbrr: bool
    padding_bytes: int
    """Size of the padding area, extensions included."""
    extensions: tuple[int, ...]
    """Ids of all extensions."""
    redundancy: RedundancyInfo | None
    unreadable: bool
    """There is a payload under our mark that cannot be read."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict() | {"redundancy": self.redundancy and self.redundancy._asdict()}


def inspect(packet: bytes, payloads: PayloadCodec, number: int = 0, time_ms: float = 0.0) -> PacketInfo:
    """Look into one packet. Never raises on what it reads.

    Args:
      payloads: reader of the payloads that are expected.
    """
    try:
        parts = opus_packet.parse(packet)
    except opus_packet.PacketError:
        return PacketInfo(number, time_ms, False, len(packet), 0, "", "", 0, 0, 0.0, 0.0, False, 0, (), None, False)
    duration = len(parts.frames) * opus_packet.frame_ms(parts.toc)
    mode, bandwidth = opus_packet.mode_and_bandwidth(parts.toc)
    data = find_redundancy(packet, payloads.wire)
    told = None if data is None else redundancy_info(data, payloads)
    return PacketInfo(
        number=number,
        time_ms=time_ms,
        valid=True,
        bytes=len(packet),
        toc=packet[0],
        mode=mode,
        bandwidth=bandwidth,
        channels=2 if parts.toc & 4 else 1,
        frames=len(parts.frames),
        duration_ms=duration,
        kbps=8 * len(packet) / duration,
        lbrr=opus_packet.has_lbrr(packet),
        padding_bytes=len(parts.padding),
        extensions=tuple(each.id for each in extension.extensions(packet)),
        redundancy=told,
        unreadable=data is not None and told is None,
    )


def redundancy_info(data: bytes, payloads: PayloadCodec) -> RedundancyInfo | None:
    """What a payload says of itself; None where it cannot be read."""
    payload = payloads.decode(data)
    return summarize(payload, len(data)) if payload.valid else None


def summarize(payload: Payload, size: int) -> RedundancyInfo:
    """The figures of a valid payload of so many bytes."""
    chunks = int(payload.chunks)
    bits = np.asarray(payload.eighths)[: 2 + chunks] / 8
    to_ms = OFFSET_MS * int(payload.header.offset)
    return RedundancyInfo(
        bytes=size,
        from_ms=to_ms - CHUNK_MS * chunks,
        to_ms=to_ms,
        chunks=chunks,
        q0=int(payload.header.level),
        slope=int(payload.header.slope),
        qmax=int(payload.header.max_level),
        levels=tuple(map(int, payload.levels[:chunks])),
        header_bits=float(bits[0]),
        state_bits=float(bits[1] - bits[0]),
        chunk_bits=tuple(map(float, np.diff(bits[1:]))),
    )


def inspect_all(packets: Iterable[bytes], payloads: PayloadCodec) -> Iterator[PacketInfo]:
    """Look into the packets of a stream, one after the other."""
    time_ms = 0.0
    for number, packet in enumerate(packets):
        info = inspect(packet, payloads, number, time_ms)
        time_ms += info.duration_ms
        yield info


def totals(infos: list[PacketInfo]) -> dict[str, float]:
    """Figures of the whole stream: packets, seconds, kb/s in all and of the padding, share with LBRR and redundancy."""
    seconds = sum(info.duration_ms for info in infos) / 1000
    count = max(1, len(infos))

    def kbps(sizes: Iterable[int]) -> float:
        return 8 * sum(sizes) / 1000 / seconds if seconds else 0.0

    return {
        "packets": len(infos),
        "seconds": seconds,
        "total_kbps": kbps(info.bytes for info in infos),
        "padding_kbps": kbps(info.padding_bytes for info in infos),
        "dred_kbps": kbps(info.redundancy.bytes for info in infos if info.redundancy),
        "lbrr_share": sum(info.lbrr for info in infos) / count,
        "dred_share": sum(info.redundancy is not None for info in infos) / count,
        "unreadable": sum(info.unreadable or not info.valid for info in infos),
    }
