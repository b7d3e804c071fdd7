"""Packets in hand to sound, 20 ms at a time: from the packet, the LBRR of the next, or a hole for others to fill.

Positions count samples at 16 kHz, as in ``jitter``. 20 ms of which a part is missing count as missing.
"""

from collections import deque
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jdred.config import PACKET_SAMPLES, SAMPLE_RATE_HZ
from jdred.link.jitter import Arrival, JitterBuffer
from jdred.link.splice import Splice
from jdred.opus import codec
from jdred.opus import packet as opus_packet


class Source(StrEnum):
    """Where a played packet came from; what this module cannot give is described (DRED) or predicted (PLC)."""

    GOOD = "GOOD"
    LBRR = "LBRR"
    DRED = "DRED"
    PLC = "PLC"


class _Piece(NamedTuple):
    """Decoded sound that waits to be played; no source where it was missing."""

    pcm: Float[np.ndarray, "samples"]
    source: Source | None


class PacketDecoder:
    """One call's packets as sound. Owns its libopus decoder.

    After every ``decode`` it is told what was played: by ``hear`` where there was sound, by ``fill`` where a hole was.
    """

    def __init__(self, buffer: JitterBuffer, use_lbrr: bool, splice: bool):
        """
        Args:
          buffer: where the packets are; they are taken out of it.
          splice: libopus is told what was played in a hole; else it goes on from its own concealment.
        Raises:
          OpusError: there is no libopus.
        """
        self.refused = 0
        """Packets that libopus could not decode; they count as lost."""
        self._buffer, self._use_lbrr = buffer, use_lbrr
        self._opus = codec.Decoder()
        self._splice = Splice() if splice else None
        self._owed = False
        """The decoder is still to be told what is played in the hole."""
        self._pieces: deque[_Piece] = deque()
        """Decoded and not played, without a gap between them."""
        self._end = 0
        """Behind the last piece."""
        self._stream, self._sequence, self._last_packet = 0, None, None
        """Of the newest packet that was to be decoded; the packet itself only where that went well."""

    def begin(self, position: int) -> None:
        """Go on from there; what is decoded and not played is dropped."""
        self._pieces.clear()
        self._end = position

    def decode(self, stop: int) -> tuple[Float[np.ndarray, "320"], Source | None]:
        """The next 20 ms of sound and where it came from.

        Args:
          stop: where they end: 320 behind that of the last call, or behind ``begin``.
        Returns:
          LBRR as the source where any of it is, none where any of it is missing: then the sound is not to be played.
        """
        self._decode_until(stop)
        parts, sources, missing = [], [], PACKET_SAMPLES
        while missing:
            piece = self._pieces.popleft()
            if len(piece.pcm) > missing:
                self._pieces.appendleft(piece._replace(pcm=piece.pcm[missing:]))
            parts.append(piece.pcm[:missing])
            sources.append(piece.source)
            missing -= len(parts[-1])
        worst = max(sources, key=(Source.GOOD, Source.LBRR, None).index)
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)), worst

    def hear(self, played: Float[Array, "320"]) -> None:
        """What was played of the last call's sound."""
        if self._splice is not None:
            self._splice.hear(np.asarray(played))

    def fill(self, played: Float[Array, "320"], pending: Float[Array, "ahead"]) -> None:
        """What was played where any of the 20 ms was missing, and what will be next if nothing comes.

        Of use where all of it was missing.
        """
        if self._owed:
            self._splice.feed(self._opus, self._last_packet, np.asarray(played), np.asarray(pending))
            self._owed = False

    def _decode_until(self, stop: int) -> None:
        """Decode what begins before ``stop``.

        Where nothing is, the decoder is kept in step by its own concealment, or by what will be played (``Splice``).
        """
        while (at := self._end) < stop:
            arrival = self._buffer.take(at)
            piece = None if arrival is None else self._received(arrival)
            piece = piece or self._bridge(at, stop)
            self._pieces.append(piece)
            self._end += len(piece.pcm)

    def _received(self, arrival: Arrival) -> _Piece | None:
        """Decode a packet; None where libopus refuses it."""
        if arrival.stream != self._stream:
            self._opus.reset()
        self._stream, self._sequence = arrival.stream, arrival.sequence
        try:
            piece = _Piece(self._opus.decode(arrival.packet), Source.GOOD)
        except codec.OpusError:
            self.refused += 1
            return None
        self._last_packet = arrival.packet
        return piece

    def _bridge(self, at: int, stop: int) -> _Piece:
        """Sound where no packet begins: the LBRR of the packet that follows, comfort noise, or a part that is missing.

        Where sequence numbers go on but time has passed the sender was silent (DTX), and nothing is missing.
        """
        following = self._buffer.first()
        samples, source = stop - at, None
        if following is not None and following.stream == self._stream:
            distance = following.position - at
            samples = min(samples, distance)
            if following.sequence is not None and following.sequence - 1 == self._sequence:
                source = Source.GOOD
            elif self._use_lbrr and opus_packet.has_lbrr(following.packet):
                copy = round(opus_packet.frame_ms(following.packet[0] & 0xFC) * SAMPLE_RATE_HZ / 1000)
                if distance == copy and (pcm := self._lbrr(following.packet, copy)) is not None:
                    return _Piece(pcm, Source.LBRR)
                if distance > copy:
                    samples = min(samples, distance - copy)
        elif following is not None:
            samples = min(samples, following.position - at)
        self._owed = self._splice is not None and source is None and samples == PACKET_SAMPLES
        return _Piece(np.zeros(samples, np.float32) if self._owed else self._opus.conceal(samples), source)

    def _lbrr(self, packet: bytes, samples: int) -> Float[np.ndarray, "samples"] | None:
        try:
            return self._opus.decode_lbrr(packet, samples)
        except codec.OpusError:
            return None
