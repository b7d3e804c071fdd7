"""Packets as a network delivers them, put back in order: positions on one time line, and what is in hand there.

Positions count samples at 16 kHz from the first packet of the call. ``Timeline`` finds a packet's position from its
sequence number and timestamp (16 and 32 bits, which wrap around; RFC 3550, RFC 7587), also across a restart of the
sender. ``JitterBuffer`` holds what was not played yet.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from jdred.config import SAMPLE_RATE_HZ

CLOCK_HZ = 48_000
"""Of RTP timestamps, whatever the codec runs at (RFC 7587, section 4.1)."""
_CLOCKS_PER_STEP, _SAMPLES_PER_STEP = CLOCK_HZ // 400, SAMPLE_RATE_HZ // 400
"""Positions are whole numbers of 2.5 ms, the shortest frame."""
JUMP_SAMPLES = 10 * SAMPLE_RATE_HZ
"""A packet so far from the one that is due does not belong to the stream as it was."""
LATE_IN_A_ROW = 25
"""So many packets that come too late, and none in time: the time line is wrong, or the delay has grown for good."""
REMEMBERED = 1024
"""Sequence numbers that are remembered to tell duplicates from late packets."""


class Arrival(NamedTuple):
    """A packet in hand."""

    position: int
    """Of its first sample."""
    samples: int
    """Its duration."""
    packet: bytes
    sequence: int | None = None
    """Wrap-arounds undone; None where the transport has none."""
    stream: int = 0
    """How often the sender had been restarted."""


@dataclass
class Counts:
    """What became of the packets that came."""

    received: int = 0
    duplicate: int = 0
    late: int = 0
    """Came after their turn, and were dropped."""
    reordered: int = 0
    """Came after one that was sent later; may have been in time all the same."""
    restarts: int = 0
    shifts: int = 0
    """How often the time line was moved because everything came late."""


class JitterBuffer:
    """Packets by position, at most one in one place."""

    def __init__(self):
        self._packets: dict[int, Arrival] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._order)

    def insert(self, arrival: Arrival) -> bool:
        """Put a packet in its place; False where there is one already."""
        if arrival.position in self._packets:
            return False
        self._packets[arrival.position] = arrival
        insort(self._order, arrival.position)
        return True

    def take(self, position: int) -> Arrival | None:
        """Remove and return the packet that begins there, None if there is none; those that begin earlier go too."""
        passed = bisect_left(self._order, position)
        for old in self._order[:passed]:
            del self._packets[old]
        del self._order[:passed]
        if position not in self._packets:
            return None
        self._order.pop(0)
        return self._packets.pop(position)

    def after(self, position: int) -> list[Arrival]:
        """The packets in hand that begin there or later, in order."""
        return [self._packets[place] for place in self._order[bisect_left(self._order, position) :]]

    def first(self) -> Arrival | None:
        """The oldest packet in hand."""
        return self._packets[self._order[0]] if self._order else None

    @property
    def end(self) -> int | None:
        """Position behind the newest packet."""
        if not self._order:
            return None
        newest = self._packets[self._order[-1]]
        return newest.position + newest.samples


class _Anchor(NamedTuple):
    """One stream's numbers: those of a packet and where it lies."""

    source: int
    sequence: int
    timestamp: int
    position: int
    stream: int


class _Stray(NamedTuple):
    """A packet that does not fit; another one that follows it makes a new stream of the two."""

    source: int
    sequence: int
    timestamp: int
    samples: int
    packet: bytes


class Timeline:
    """Places of packets. Owns the counts; knows nothing of what is in the packets."""

    def __init__(self):
        self.counts = Counts()
        self._anchor: _Anchor | None = None
        self._highest = 0
        self._seen: deque[int] = deque(maxlen=REMEMBERED)
        self._stray: _Stray | None = None
        self._left: deque[int] = deque(maxlen=8)
        """Sources of streams before this one; what still comes from them is too late."""
        self._late = 0

    def place(
        self, packet: bytes, samples: int, sequence: int, timestamp: int, source: int, due: int, start: int
    ) -> list[Arrival]:
        """Where a packet belongs.

        Args:
          samples: its duration at 16 kHz.
          sequence, timestamp, source: as in its RTP header (16, 32, 32 bits).
          due: position that is played next; what begins before is late.
          start: position for the first packet of a stream that begins now.
        Returns:
          what is to be put into the buffer: mostly this packet, none if it is late, a duplicate or a stray, two where
          it shows that the one before began a new stream.
        """
        self.counts.received += 1
        heard = _Stray(source, sequence, timestamp, samples, packet)
        if self._anchor is None:
            return self._begin(heard, start)
        position, extended = self._locate(heard)
        if source in self._left:
            self.counts.late += 1
            return []
        if source != self._anchor.source or not due - JUMP_SAMPLES <= position <= start + JUMP_SAMPLES:
            return self._new_stream(heard, start)
        if extended in self._seen:
            self.counts.duplicate += 1
            return []
        self._seen.append(extended)
        self.counts.reordered += extended < self._highest
        self._highest = max(self._highest, extended)
        if position < due:
            return self._too_late(heard, extended, start)
        self._late = 0
        # The newest packet is the one to count from: numbers wrap around, and a day is longer than 32 bits.
        if extended == self._highest:
            self._anchor = self._anchor._replace(sequence=extended, timestamp=timestamp, position=position)
        self._stray = None
        return [Arrival(position, samples, packet, extended, self._anchor.stream)]

    def _locate(self, heard: _Stray) -> tuple[int, int]:
        """Position and extended sequence number by the anchor."""
        steps = round(_signed(heard.timestamp - self._anchor.timestamp, 32) / _CLOCKS_PER_STEP)
        extended = self._anchor.sequence + _signed(heard.sequence - self._anchor.sequence, 16)
        return self._anchor.position + _SAMPLES_PER_STEP * steps, extended

    def _begin(self, heard: _Stray, start: int, stream: int = 0) -> list[Arrival]:
        self._anchor = _Anchor(heard.source, heard.sequence, heard.timestamp, start, stream)
        self._highest, self._late, self._stray = heard.sequence, 0, None
        self._seen.clear()
        self._seen.append(heard.sequence)
        return [Arrival(start, heard.samples, heard.packet, heard.sequence, stream)]

    def _new_stream(self, heard: _Stray, start: int) -> list[Arrival]:
        """Two packets in a row (or nearly) that do not fit are a new stream; one alone is not."""
        before, self._stray = self._stray, heard
        if before is None or before.source != heard.source:
            return []
        if not 0 < _signed(heard.sequence - before.sequence, 16) <= LATE_IN_A_ROW:
            return []
        self.counts.restarts += 1
        if before.source != self._anchor.source:
            self._left.append(self._anchor.source)
        first = self._begin(before, start, self._anchor.stream + 1)
        position, extended = self._locate(heard)
        self._seen.append(extended)
        self._highest = extended
        return [*first, Arrival(position, heard.samples, heard.packet, extended, self._anchor.stream)]

    def _too_late(self, heard: _Stray, extended: int, start: int) -> list[Arrival]:
        self._late += 1
        if self._late < LATE_IN_A_ROW:
            self.counts.late += 1
            return []
        self.counts.shifts += 1
        self._late = 0
        self._anchor = self._anchor._replace(sequence=extended, timestamp=heard.timestamp, position=start)
        return [Arrival(start, heard.samples, heard.packet, extended, self._anchor.stream)]


def _signed(difference: int, bits: int) -> int:
    """The smallest number that equals ``difference`` modulo ``2 ** bits``."""
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half
