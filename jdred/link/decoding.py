"""Packets in hand to sound, 20 ms at a time: by libopus, from LBRR, or a hole where nothing is known.

Positions count samples at 16 kHz, as in ``jitter``. 20 ms of which a part is missing count as missing.
"""

from collections import deque
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jdred.config import PACKET_SAMPLES, SAMPLE_RATE_HZ
from jdred.link.jitter import Arrival, JitterBuffer
from jdred.link.splice import Splice
from jdred.opus import codec
from jdred.opus import packet as opus_packet


class Source(StrEnum):
    """Where a played packet came from."""

    GOOD = "GOOD"
    LBRR = "LBRR"
    DRED = "DRED"
    PLC = "PLC"


class _Piece(NamedTuple):
    """Decoded sound that waits to be played; no source where it was missing."""

    pcm: Float[np.ndarray, "samples"]
    source: Source | None


class Decoding:
    """One stream's packets as sound. Owns its libopus decoder, which has to be told what is played in a hole."""

    def __init__(self, buffer: JitterBuffer, use_lbrr: bool, splice: bool):
        """
        Args:
          buffer: where the packets are; they are taken out of it.
          splice: see ``splice.Splice``.
        Raises:
          OpusError: there is no libopus.
        """
        self.damaged = 0
        """Packets that libopus refused; they count as lost."""
        self._buffer, self._use_lbrr = buffer, use_lbrr
        self._opus = codec.Decoder()
        self._splice = Splice() if splice else None
        self._owed = False
        """The decoder is still to be told what is played in the hole."""
        self._pieces: deque[_Piece] = deque()
        self._end = 0
        """Behind the last piece."""
        self._stream, self._sequence, self._last_packet = 0, None, None
        """Of the packet that was decoded last."""

    def begin(self, position: int) -> None:
        """What was decoded is at its end; go on from there."""
        self._end = position

    def decode(self, stop: int) -> tuple[Float[np.ndarray, "320"], Source | None]:
        """The 20 ms that end at ``stop``, behind those of the last call: no source where any of it is missing, LBRR
        where any of it is.
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

    def hear(self, played: Float[np.ndarray, "320"]) -> None:
        """What was played of the last call's sound."""
        if self._splice is not None:
            self._splice.hear(played)

    def fill(self, played: Float[np.ndarray, "320"], pending: Float[np.ndarray, "ahead"]) -> None:
        """What was played in the hole that the last call found, and what will be if it goes on."""
        if self._owed:
            self._splice.feed(self._opus, self._last_packet, played, pending)
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
            self.damaged += 1
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
