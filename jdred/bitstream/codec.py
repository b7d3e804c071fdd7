"""Payloads as bytes, for live use: checked arguments, compiled functions, and the version byte in front.

The letter before that byte belongs to the carrier (``opus.marker``).
"""

from functools import partial

import jax
import numpy as np
from jaxtyping import Int

from jdred.bitstream import payload, symbols
from jdred.bitstream.payload import Header, Payload
from jdred.bitstream.wire import JDRED, Wire
from jdred.config import MAX_CHUNKS, MAX_PAYLOAD_BYTES, NUM_LEVELS
from jdred.rdovae.tables import CodingTables

_CAPACITY = MAX_PAYLOAD_BYTES - 1
# The tables are arguments, not constants: XLA would copy constants into its loops and not make one kernel of each.
_write = jax.jit(partial(payload.write, capacity=_CAPACITY))
_read = jax.jit(payload.read)


class PayloadError(ValueError):
    """An argument of the writer that no payload can hold. What is received never raises it."""


class PayloadCodec:
    """Writer and reader of the payloads of one set of weights.

    With the wire ``LIBOPUS`` and its tables they are those of libopus 1.6, to the bit.
    """

    def __init__(self, tables: CodingTables, wire: Wire = JDRED):
        self.wire = wire
        self._distributions = jax.device_put(payload.distributions(tables))
        self._latent_dim, self._state_dim = tables.latent_p0.shape[-1], tables.state_p0.shape[-1]

    def encode(
        self,
        header: Header,
        state: Int[np.ndarray, "state"],
        latents: Int[np.ndarray, "26 latent"],
        chunks: int = MAX_CHUNKS,
        max_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> bytes:
        """Version byte and payload in at most ``max_bytes``; empty if not even one chunk fits.

        Raises:
          PayloadError: shapes, header fields, number of chunks or symbols out of range.
        """
        header = Header(*(int(field) for field in header))
        state, latents = np.asarray(state), np.asarray(latents)
        self._check(header, state, latents, chunks)
        room = np.int32(np.clip(max_bytes - 1, 0, _CAPACITY))
        fields = Header(*np.array(header, np.int32))
        values = state.astype(np.int32), latents.astype(np.int32)
        written = _write(self._distributions, fields, *values, np.int32(chunks), room)
        if not (length := int(written.length)):
            return b""
        return bytes([self.wire.version_byte(int(written.chunks))]) + np.asarray(written.data)[:length].tobytes()

    def decode(self, data: bytes, frames: int = payload.ALL_FRAMES) -> Payload:
        """What ``encode`` packed, as NumPy arrays; not ``valid`` for other versions and for garbage.

        Args:
          frames: how far before the packet (10 ms each) something is missing; older chunks are left alone.
        """
        announced = self.wire.announced(data[0]) if data else None
        octets = np.frombuffer(data if announced is not None else b"", np.uint8)[1 : 1 + _CAPACITY]
        padded = np.pad(octets, (0, _CAPACITY - len(octets)))
        got = _read(self._distributions, padded, np.int32(len(octets)), np.int32(announced or 0), np.int32(frames))
        return jax.tree.map(np.asarray, got)

    def _check(self, header: Header, state: np.ndarray, latents: np.ndarray, chunks: int) -> None:
        top = NUM_LEVELS - 1
        coded = header.slope > 0 and header.level < top - 1
        lowest = header.level + 1 if coded else (top if header.slope > 0 else header.level)
        size = max(np.abs(state).max(initial=0), np.abs(latents).max(initial=0))
        for name, value, low, high in (
            ("level", header.level, 0, top),
            ("slope", header.slope, 0, len(payload.SLOPES) - 1),
            ("max_level", header.max_level, lowest, top),
            ("offset", header.offset, payload.OLDEST_OFFSET, payload.NEWEST_OFFSET),
            ("chunks", chunks, 1, MAX_CHUNKS),
            ("symbol size", size, 0, symbols.MAX_SYMBOL),
        ):
            if not low <= value <= high:
                raise PayloadError(f"{name} must be {low} .. {high}, found {value}")
        for name, array, shape in (
            ("state", state, (self._state_dim,)),
            ("latents", latents, (MAX_CHUNKS, self._latent_dim)),
        ):
            if array.shape != shape or array.dtype.kind not in "iu":
                raise PayloadError(f"{name} must be integers of shape {shape}, found {array.dtype} {array.shape}")
