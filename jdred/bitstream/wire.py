"""Whose payloads a link speaks: their mark, and where in time they stand.

An experimental extension begins with a letter, which tells whose it is, and a version byte. libopus counts its networks
there. jdred needs fewer versions and uses the rest of the byte for what libopus leaves to be guessed from the length:
the number of chunks.
"""

from dataclasses import dataclass

import jax

from jdred.config import MAX_CHUNKS


@jax.tree_util.register_static
@dataclass(frozen=True)
class Wire:
    """A way to send redundancy. Sender and receiver must share it as they share their networks."""

    name: str
    letter: bytes
    version: int
    """Changes with the network or its tables."""
    chunk_bits: int
    """Low bits of the version byte that hold the number of chunks, less one."""
    newest_offset: int
    """Where the newest edge of a payload is, if no silence was left out: in 2.5 ms after its packet begins."""
    centre: int
    """From the centre of the newest row to that edge, in 2.5 ms."""
    delay_samples: int | None
    """By how much the sender's analysis is behind the input; None: by as much as the codec is."""

    def version_byte(self, chunks: int) -> int:
        """Of a payload of so many chunks."""
        return self.version if not self.chunk_bits else self.version << self.chunk_bits | chunks - 1

    def announced(self, version_byte: int) -> int | None:
        """The number of chunks that the version byte announces, 0 if it does not tell; None for other versions."""
        version, chunks = divmod(version_byte, 1 << self.chunk_bits)
        if version != self.version or chunks >= MAX_CHUNKS:
            return None
        return chunks + 1 if self.chunk_bits else 0


JDRED = Wire("jdred", b"J", 0, 5, newest_offset=6, centre=2, delay_samples=None)
"""Rows fall on packet boundaries of the decoded sound: the newest is centred 10 ms after the packet begins."""
LIBOPUS = Wire("libopus", b"D", 12, 0, newest_offset=10, centre=4, delay_samples=11)
"""libopus 1.6. Its analysis is ahead of its codec; edges are those of the 20 ms that a row is computed from."""
WIRES = {wire.name: wire for wire in (JDRED, LIBOPUS)}
