"""Packets to PCM: what arrived is played, what was lost is repaired by the next packet that is in hand.

A receiver plays packet j when packet j + delay is due, so a gap can be filled from any packet that came meanwhile: its
LBRR if it follows at once, else its redundancy, decoded backwards. What no packet knows is predicted.
"""

from collections import Counter, deque
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jdred.bitstream.codec import PayloadCodec
from jdred.bitstream.payload import Payload
from jdred.config import (
    CHUNK_FRAMES,
    FRAME_SAMPLES,
    MAX_CHUNKS,
    NUM_FEATURES,
    PACKET_FRAMES,
    PACKET_SAMPLES,
    ReceiverConfig,
)
from jdred.dsp.features import extract
from jdred.models import Models
from jdred.opus import codec
from jdred.opus.marker import find_redundancy
from jdred.opus.packet import has_lbrr
from jdred.plc.concealer import SPOKEN_ROWS, Concealer, ConcealerState
from jdred.rdovae import RDOVAE


class Source(StrEnum):
    """Where a played packet came from."""

    GOOD = "GOOD"
    LBRR = "LBRR"
    DRED = "DRED"
    PLC = "PLC"


class Described(NamedTuple):
    """Feature rows that a packet's redundancy holds."""

    rows: Float[Array, "104 20"]
    """Newest first."""
    count: Int[Array, ""]
    """Rows that were sent; 0 where there is no redundancy."""
    newest: Int[Array, ""]
    """Frame of row 0, counted from the packet's first frame; negative behind skipped silence."""


def describe(rdovae: RDOVAE, payload: Payload) -> Described:
    """Decode a payload, newest chunk to oldest."""
    rows = rdovae.reconstruct(payload.latents, payload.state, payload.levels)
    count = jnp.where(payload.valid, CHUNK_FRAMES * payload.chunks, 0)
    # Row 0 ends 2.5 ms * offset after the packet begins, and is centred 5 ms before that.
    return Described(rows, count, (payload.header.offset - 2) // 4)


def gap_rows(
    described: Described, distance: Int[Array, ""], count: int
) -> tuple[Float[Array, "count 20"], Bool[Array, "count"]]:
    """The ``count`` rows from the packet lost ``distance`` packets before the one described, and which are known.

    Rows newer than the redundancy are known to be silent: the sender leaves out nothing else.
    """
    frames = jnp.arange(count) - PACKET_FRAMES * distance
    age = described.newest - frames
    rows = described.rows[jnp.clip(age, 0, described.rows.shape[0] - 1)]
    rows = jnp.where((age < 0)[:, None], silent_row(), rows)
    return rows, (age < described.count) & (described.count > 0)


def silent_row() -> Float[Array, "20"]:
    """Features of digital silence."""
    return extract(jnp.zeros(FRAME_SAMPLES))[0]


NOTHING = Described(np.zeros((CHUNK_FRAMES * MAX_CHUNKS, NUM_FEATURES), np.float32), np.int32(0), np.int32(0))


_describe = jax.jit(describe)
_good = jax.jit(Concealer.good)


class Receiver:
    """One listening end: a packet (or None, lost) in every 20 ms, 20 ms of PCM out. Owns its libopus decoder."""

    def __init__(self, models: Models, config: ReceiverConfig = ReceiverConfig()):
        """Raises ``OpusError`` where there is no libopus."""
        self.config = config
        self.delay_packets = -(-config.playout_delay_ms // 20)
        self.counts: Counter[Source] = Counter()
        """Packets played so far, by source."""
        self.unreadable = 0
        """Redundancy payloads and packets that could not be read; they count as lost."""
        self.last_source: Source | None = None
        self._opus = codec.Decoder()
        self._payload = PayloadCodec(models.tables)
        self._rdovae = models.rdovae
        concealer = Concealer(models.predictor, models.vocoder)
        self._good, self._conceal = partial(_good, concealer), partial(conceal_step, concealer)
        self._state = concealer.init_state()
        self._key, self._played = jax.random.key(config.seed), 0
        self._waiting: deque[bytes | None] = deque()
        self._described: tuple[bytes, Described] | None = None

    def push(self, packet: bytes | None) -> Float[np.ndarray, "samples"]:
        """Take the packet of this slot, None if it was lost; play what is due.

        Returns:
          320 samples in [-1, 1], none while the playout delay fills.
        """
        self._waiting.append(packet)
        return self._play() if len(self._waiting) > self.delay_packets else np.zeros(0, np.float32)

    @property
    def waiting(self) -> int:
        """Packets in hand that are not played yet."""
        return len(self._waiting)

    def drain(self) -> Float[np.ndarray, "320"]:
        """Play one packet that still waits, at the end of a stream. Raises ``IndexError`` where none does."""
        return self._play()

    def _play(self) -> Float[np.ndarray, "320"]:
        packet = self._waiting.popleft()
        pcm, source = self._received(packet), Source.GOOD
        if pcm is None:
            pcm, source = self._from_lbrr(), Source.LBRR
        if pcm is not None:
            self._state, played = self._good(self._state, pcm)
        else:
            # libopus's own concealment keeps its decoder in step with the stream; nobody hears it.
            self._opus.conceal(PACKET_SAMPLES)
            described, distance = self._redundancy()
            self._state, played, known = self._conceal(
                self._state, described, np.int32(distance), self._key, np.int32(self._played)
            )
            source = Source.DRED if bool(known) else Source.PLC
        self._played += 1
        self.counts[source] += 1
        self.last_source = source
        return np.asarray(played)

    def _received(self, packet: bytes | None) -> Float[np.ndarray, "320"] | None:
        """Decode a packet; None where it is lost, damaged or not of 20 ms."""
        if packet is None:
            return None
        try:
            pcm = self._opus.decode(packet)
        except (codec.OpusError, ValueError):
            pcm = np.zeros(0)
        if pcm.shape == (PACKET_SAMPLES,):
            return pcm
        self.unreadable += 1
        return None

    def _from_lbrr(self) -> Float[np.ndarray, "320"] | None:
        following = self._waiting[0] if self._waiting else None
        if not self.config.use_lbrr or following is None or not has_lbrr(following):
            return None
        try:
            return self._opus.decode_lbrr(following, PACKET_SAMPLES)
        except (codec.OpusError, ValueError):
            return None

    def _redundancy(self) -> tuple[Described, int]:
        """What the next packet in hand says of the past, and how far it is from the packet being played."""
        if not self.config.use_dred:
            return NOTHING, 1
        for distance, packet in enumerate(self._waiting, 1):
            if packet is not None:
                if self._described is None or self._described[0] is not packet:
                    self._described = packet, self._read(packet)
                return self._described[1], distance
        return NOTHING, 1

    def _read(self, packet: bytes) -> Described:
        data = find_redundancy(packet)
        if data is None:
            return NOTHING
        payload = self._payload.decode(data)
        if payload.valid:
            return _describe(self._rdovae, payload)
        self.unreadable += 1
        return NOTHING


@jax.jit
def conceal_step(
    concealer: Concealer,
    state: ConcealerState,
    described: Described,
    distance: Int[Array, ""],
    key: Key[Array, ""],
    number: Int[Array, ""],
) -> tuple[ConcealerState, Float[Array, "320"], Bool[Array, ""]]:
    """Fill the packet lost ``distance`` packets before the one described: new state, sound, whether it was described.

    Its random numbers depend on the key and the packet's number only.
    """
    rows, known = gap_rows(described, distance, concealer.conceal_rows)
    uniforms = jax.random.uniform(jax.random.fold_in(key, number), (SPOKEN_ROWS, FRAME_SAMPLES, 8))
    state, pcm = concealer.conceal(state, rows, known, uniforms)
    return state, pcm, jnp.any(known[:SPOKEN_ROWS])
