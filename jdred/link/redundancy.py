"""What the redundancy of a packet says of the past: feature rows, and which of them a gap is spoken from."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdred.bitstream.payload import Payload
from jdred.bitstream.wire import JDRED
from jdred.config import CHUNK_FRAMES, FRAME_SAMPLES, MAX_CHUNKS, NUM_FEATURES
from jdred.dsp.features import extract
from jdred.models import Models
from jdred.opus.marker import find_redundancy, locate_redundancy
from jdred.opus.packet import frame_ms
from jdred.rdovae import RDOVAE
from jdred.streaming import bind

OFFSET_MS = 2.5
"""Unit of a payload's offset."""


class Described(NamedTuple):
    """Feature rows that a packet's redundancy holds."""

    rows: Float[Array, "104 20"]
    """Newest first."""
    count: Int[Array, ""]
    """Rows that are known; 0 where there is no redundancy."""
    newest: Int[Array, ""]
    """Frame of row 0, counted from the packet's first frame; negative behind skipped silence."""


def describe(rdovae: RDOVAE, payload: Payload, centre: Int[Array, ""] | int = JDRED.centre) -> Described:
    """Decode a payload, newest chunk to oldest; its cost is in proportion to the chunks that were read."""
    rows = rdovae.reconstruct_newest(payload.latents, payload.state, payload.levels, payload.chunks)
    count = jnp.where(payload.valid, CHUNK_FRAMES * payload.chunks, 0)
    # The edge is 2.5 ms * offset after the packet begins; row 0 is centred 2.5 ms * centre before that. Rows that are
    # centred between two frames' starts are taken for one frame by what is between them.
    newest, quarters = jnp.divmod(payload.header.offset - centre, 4)
    has_older = jnp.arange(1, len(rows) + 1) < count
    older = jnp.where(has_older[:, None], jnp.roll(rows, -1, axis=0), rows)
    return Described(rows + quarters / 4 * (older - rows), count, newest)


def gap_rows(
    described: Described, frames: Int[Array, ""], count: int
) -> tuple[Float[Array, "count 20"], Bool[Array, "count"]]:
    """The ``count`` rows of a gap that begins ``frames`` before the packet described, and which are known.

    Rows newer than the redundancy are known to be silent: the sender leaves out nothing else.
    """
    age = described.newest - (jnp.arange(count) - frames)
    rows = described.rows[jnp.clip(age, 0, described.rows.shape[0] - 1)]
    rows = jnp.where((age < 0)[:, None], silent_row(), rows)
    return rows, (age < described.count) & (described.count > 0)


def reaches(described: Described, frames: Int[Array, "..."] | int) -> Bool[Array, "..."]:
    """Whether what begins ``frames`` before the packet described is known."""
    return described.newest + frames < described.count


def silent_row() -> Float[Array, "20"]:
    """Features of digital silence."""
    return extract(jnp.zeros(FRAME_SAMPLES))[0]


NOTHING = Described(np.zeros((CHUNK_FRAMES * MAX_CHUNKS, NUM_FEATURES), np.float32), np.int32(0), np.int32(0))


_KEPT = 4
"""Packets whose redundancy is remembered: a gap that is filled from them asks for less and less."""


class RedundancyReader:
    """Reads what packets say of the past, as far back as is asked for, newest first. Never raises on what it reads."""

    def __init__(self, models: Models):
        self.unreadable = 0
        """Payloads that could not be read; they count as none."""
        self._payload = models.payloads
        self._describe, self._centre = bind(describe, models.rdovae), np.int32(models.wire.centre)
        self._kept: dict[bytes, tuple[int, Described]] = {}

    def announced(self, packet: bytes) -> int | None:
        """The number of chunks that a payload says it has, 0 where it does not tell; None where there is none."""
        data = find_redundancy(packet, self._payload.wire)
        return None if data is None else (self._payload.wire.announced(data[0]) if data else None) or 0

    def read(self, packet: bytes, frames: int) -> Described:
        """What a packet says of the ``frames`` (10 ms each) before it."""
        known, described = self._kept.pop(packet, (-1, NOTHING))
        if known < frames:
            known, described = frames, self._read(packet, frames)
        self._kept[packet] = known, described
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return described

    def _read(self, packet: bytes, frames: int) -> Described:
        located = locate_redundancy(packet, self._payload.wire)
        if located is None:
            return NOTHING
        # A payload counts from the Opus frame that it belongs to.
        later = round(located[0] * frame_ms(packet[0]) / OFFSET_MS)
        payload = self._payload.decode(located[1], frames + -(-later // 4))
        if payload.valid:
            header = payload.header._replace(offset=payload.header.offset + np.int32(later))
            return self._describe(payload._replace(header=header), self._centre)
        self.unreadable += 1
        return NOTHING
