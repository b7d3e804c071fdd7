"""Packets to PCM: what arrived is played, what was lost is repaired by the next packet that is in hand.

A receiver plays 20 ms at a time, the playout delay behind the newest packet, so a gap can be filled from any packet
that came meanwhile: its LBRR if it follows at once (``decoding``), else its redundancy, decoded backwards. What no
packet knows is predicted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jdred.config import FRAME_SAMPLES, PACKET_SAMPLES, SAMPLE_RATE_HZ, ReceiverConfig
from jdred.link.decoding import PacketDecoder, Source
from jdred.link.jitter import Arrival, JitterBuffer, Timeline
from jdred.link.redundancy import NOTHING, Described, RedundancyReader, describe, gap_rows, reaches
from jdred.models import Models
from jdred.opus import packet as opus_packet
from jdred.packed import packed
from jdred.plc.concealer import SPOKEN_ROWS, Concealer, ConcealerState
from jdred.streaming import bind
from jdred.vocoder.fargan import FARGAN

__all__ = ["Described", "Receiver", "Source", "describe", "gap_rows"]


SURPLUS_PACKETS = 10
"""By so much the beginning of a call may be further behind than the playout delay."""


class Receiver:
    """One listening end, 20 ms of PCM out every 20 ms.

    Packets come in by ``push``, one or none for every 20 ms, or by ``put``, whenever they come, with the numbers of
    their RTP headers; then ``play`` is called every 20 ms. Real time: what is played is decided when it is due. With
    ``config.offline`` a gap waits for the packet that ends it, however long that takes.
    """

    def __init__(self, models: Models, config: ReceiverConfig = ReceiverConfig()):
        """Raises ``OpusError`` where there is no libopus."""
        self.config = config
        self.delay_packets = -(-config.playout_delay_ms // 20)
        self.counts: Counter[Source] = Counter()
        """Packets of 20 ms played so far, by source."""
        self.last_source: Source | None = None
        self.last_sources: list[Source] = []
        """Of all that the last call played."""
        self.timeline = Timeline()
        """Its ``counts`` say what became of the packets that were put."""
        self._buffer = JitterBuffer()
        self._decoder = PacketDecoder(self._buffer, config.use_lbrr, config.splice)
        self._reader = RedundancyReader(models)
        concealer = models.concealer
        if isinstance(models.vocoder, FARGAN):
            concealer = replace(concealer, vocoder=packed(models.vocoder))
        self._good, self._conceal = bind(Concealer.good, concealer), bind(_conceal, concealer)
        self._state = concealer.init_state()
        self._key, self._played = jax.random.key(config.seed), 0
        self._clock = 0
        """Position that is played next; all positions are in samples."""
        self._slots_end, self._newest_end = 0, 0
        """Where the slots that were pushed end, and the newest packet."""
        self._filling: int | None = self.delay_packets
        """Calls of ``play`` until the first sound, where packets are put."""
        self._damaged = 0
        """Packets that do not say how long they are."""

    @property
    def unreadable(self) -> int:
        """Redundancy payloads and packets that could not be read; they count as lost."""
        return self._damaged + self._decoder.refused + self._reader.unreadable

    @property
    def waiting(self) -> int:
        """Times 20 ms that came in, lost or not, and are not played yet."""
        return max(0, -(-(max(self._slots_end, self._newest_end) - self._clock) // PACKET_SAMPLES))

    def push(self, packet: bytes | None) -> Float[np.ndarray, "samples"]:
        """Take the packet that begins with this slot of 20 ms, None if it was lost or there is none; play what is due.

        Returns:
          320 samples in [-1, 1], none while the playout delay fills; offline, all that need wait no longer.
        """
        return self.push_all([] if packet is None else [(0, packet)])

    def push_all(self, packets: Sequence[tuple[int, bytes]]) -> Float[np.ndarray, "samples"]:
        """``push`` for packets of any duration: those that begin in this slot, each with how many samples later."""
        begin, self._slots_end = self._slots_end, self._slots_end + PACKET_SAMPLES
        for offset, packet in packets:
            if samples := self._duration(packet):
                self._insert([Arrival(begin + offset, samples, packet)])
        if self.config.offline:
            return self.recover()
        self.last_sources = []
        due = self._slots_end - self._clock > self.delay_packets * PACKET_SAMPLES
        return self._play() if due else np.zeros(0, np.float32)

    def put(self, packet: bytes, sequence: int, timestamp: int, source: int = 0) -> None:
        """Take a packet from a network: in any order, twice, or too late.

        Args:
          sequence, timestamp, source: of its RTP header: 16 and 32 bits that wrap around, and who sends.
        """
        samples = self._duration(packet)
        if not samples:
            return
        delay = self.delay_packets * PACKET_SAMPLES
        # Before anything is played, a packet that was sent earlier may still come.
        due, start = (self._clock, self._clock + delay) if self._filling is None else (self._clock - delay, 0)
        self._insert(self.timeline.place(packet, samples, sequence, timestamp, source, due, start))

    def play(self) -> Float[np.ndarray, "samples"]:
        """Play the next 20 ms; to be called every 20 ms where packets are ``put``.

        Returns:
          320 samples in [-1, 1]; none before the first packet and while the playout delay fills after it.
        """
        self.last_sources = []
        if self._filling is not None:
            if not self._buffer or self._filling > 0:
                self._filling -= bool(self._buffer)
                return np.zeros(0, np.float32)
            self._start()
            self._skip_surplus()
        return self._play()

    def recover(self) -> Float[np.ndarray, "samples"]:
        """Play all up to the end of the newest packet, whatever the delay."""
        self.last_sources, played = [], [np.zeros(0, np.float32)]
        self._start()
        while self._clock + PACKET_SAMPLES <= self._newest_end:
            played.append(self._play())
        return np.concatenate(played)

    def drain(self) -> Float[np.ndarray, "320"]:
        """Play 20 ms that still wait, at the end of a stream. Raises ``IndexError`` where none do."""
        if not self.waiting:
            raise IndexError("nothing waits to be played")
        self.last_sources = []
        self._start()
        return self._play()

    def _start(self) -> None:
        """The delay is over: from now on time runs."""
        first = self._buffer.first()
        if self._filling is not None and first is not None and first.position < self._clock:
            self._go_on_from(first.position)
        self._filling = None

    def _skip_surplus(self) -> None:
        """Where the first packets were held up and came all at once: not to lag behind for the rest of the call."""
        surplus = (self._newest_end - self._clock) // PACKET_SAMPLES - self.delay_packets - 1
        if surplus > SURPLUS_PACKETS:
            self._go_on_from(self._clock + surplus * PACKET_SAMPLES)

    def _go_on_from(self, position: int) -> None:
        self._clock = position
        self._decoder.begin(position)

    def _duration(self, packet: bytes) -> int:
        """Samples in a packet; 0 for one that is damaged, which is counted."""
        try:
            return round(opus_packet.duration_ms(packet) * SAMPLE_RATE_HZ / 1000)
        except opus_packet.PacketError:
            self._damaged += 1
            return 0

    def _insert(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            if self._buffer.insert(arrival):
                self._newest_end = max(self._newest_end, arrival.position + arrival.samples)

    def _play(self) -> Float[np.ndarray, "320"]:
        pcm, source = self._decoder.decode(self._clock + PACKET_SAMPLES)
        if source is not None:
            self._state, played = self._good(self._state, pcm)
            self._decoder.hear(played)
        else:
            described, frames = self._redundancy()
            self._state, played, known = self._conceal(
                self._state, described, np.int32(frames), self._key, np.int32(self._played)
            )
            source = Source.DRED if bool(known) else Source.PLC
            self._decoder.fill(played, self._state.pending)
        self._clock += PACKET_SAMPLES
        self._played += 1
        self.counts[source] += 1
        self.last_source = source
        self.last_sources.append(source)
        return np.asarray(played)

    def _redundancy(self) -> tuple[Described, int]:
        """What a packet in hand says of the past, and how many frames before it the next 20 ms begin.

        It is the first whose redundancy reaches so far, or else the first with any.
        """
        found, longest = (NOTHING, 1), -1
        for arrival in self._buffer.after(self._clock + 1) if self.config.use_dred else ():
            chunks = self._reader.announced(arrival.packet)
            if chunks is None or chunks <= longest:
                continue
            frames = -(-(arrival.position - self._clock) // FRAME_SAMPLES)
            described = self._reader.read(arrival.packet, frames)
            reached = bool(reaches(described, frames))
            if reached or longest < 0:
                found = described, frames
            if reached:
                break
            longest = chunks
        return found


def _conceal(
    concealer: Concealer,
    state: ConcealerState,
    described: Described,
    frames: Int[Array, ""],
    key: Key[Array, ""],
    number: Int[Array, ""],
) -> tuple[ConcealerState, Float[Array, "320"], Bool[Array, ""]]:
    """Fill 20 ms that begin ``frames`` before the packet described: new state, sound, whether it was described.

    Its random numbers depend on the key and the number of the slot only.
    """
    rows, known = gap_rows(described, frames, concealer.conceal_rows)
    uniforms = jax.random.uniform(jax.random.fold_in(key, number), (SPOKEN_ROWS, FRAME_SAMPLES, 8))
    state, pcm = concealer.conceal(state, rows, known, uniforms)
    return state, pcm, jnp.any(known[:SPOKEN_ROWS])
