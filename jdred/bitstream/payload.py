"""The redundancy of one packet: a header, the decoder's starting state, and chunks from the newest to the oldest.

Layout and meaning are those of libopus 1.6 (draft-ietf-mlcodec-opus-dred), range coded throughout. Offsets are in
2.5 ms. Everything here is compiled, works on fixed shapes and never raises on what it reads.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt16

from jdred.bitstream import range_coder, symbols
from jdred.bitstream.range_coder import Decoder, Encoder
from jdred.config import CHUNK_FRAMES, MAX_CHUNKS, MAX_PAYLOAD_BYTES, NUM_LEVELS
from jdred.rdovae.tables import CodingTables

SLOPES = (0, 2, 3, 4, 6, 8, 12, 16)
"""Sixteenths of a level that a chunk of age i is coarser than one of age i - 1, by the header's slope index."""
NEWEST_OFFSET = 16
"""The largest offset: the features reach 40 ms beyond the start of the packet."""
OLDEST_OFFSET = NEWEST_OFFSET - (256 * 32 - 1)
ALL_FRAMES = -OLDEST_OFFSET // 4 + CHUNK_FRAMES * MAX_CHUNKS + 1
"""No payload reaches further back than so many frames."""
MARKS = 2 + MAX_CHUNKS
"""Places where the used bits are noted: after the header, after the state, after each chunk."""
_TOP_LEVEL = NUM_LEVELS - 1
_one_by_one = jax.custom_batching.sequential_vmap
"""Under vmap. Batched, loops of data-dependent length would all run as long as the longest and copy their buffers."""


class Header(NamedTuple):
    """What a payload says about itself."""

    level: Int[Array, ""]
    """q0: level of the state and of the newest chunk, 0 .. 15."""
    slope: Int[Array, ""]
    """dQ: index 0 .. 7 into ``SLOPES``."""
    max_level: Int[Array, ""]
    """qmax: no chunk is coarser; above ``level``. Coded only where levels rise; 15 is the cheapest."""
    offset: Int[Array, ""]
    """The newest edge of the features, in 2.5 ms after the start of the frame that carries them; 16 .. -8175."""


class Distributions(NamedTuple):
    """``symbols.survival_rows`` of all levels."""

    latent: UInt16[Array, "16 latent 2 9"]
    state: UInt16[Array, "16 state 2 9"]


class Written(NamedTuple):
    """A payload in ``data[:length]``; length 0 where not even one chunk fits."""

    data: UInt8[Array, "capacity"]
    length: Int[Array, ""]
    chunks: Int[Array, ""]
    eighths: Int[Array, "28"]
    """Bits used at the ``MARKS`` in 1/8 bit, -1 beyond the chunks."""


class Payload(NamedTuple):
    """What was read; symbols are zero beyond ``chunks``."""

    header: Header
    levels: Int[Array, "26"]
    state: Int[Array, "state"]
    latents: Int[Array, "26 latent"]
    """Newest first."""
    chunks: Int[Array, ""]
    valid: Bool[Array, ""]
    """Header, state and at least one chunk are whole and legal."""
    eighths: Int[Array, "28"]


class _Marks(NamedTuple):
    """Ranges and positions of the coder at the ``MARKS``; a range of 0 is a mark not reached."""

    range: Array
    position: Array

    def note(self, i: Array | int, coder: Encoder | Decoder, reached: Array | bool = True) -> "_Marks":
        size = jnp.where(reached, coder.range, 0)
        return _Marks(self.range.at[i].set(size), self.position.at[i].set(coder.position))

    def eighths(self) -> Int[Array, "28"]:
        return jnp.where(self.range > 0, range_coder.tell_eighths(self.range, self.position), -1)


def distributions(tables: CodingTables) -> Distributions:
    """What the coder needs of the tables; compute it once per set of weights."""
    return Distributions(
        latent=symbols.survival_rows(tables.latent_p0, tables.latent_r),
        state=symbols.survival_rows(tables.state_p0, tables.state_r),
    )


def level_schedule(level: Int[Array, ""], slope: Int[Array, ""], max_level: Int[Array, ""]) -> Int[Array, "26"]:
    """Level of each chunk, newest first: rises with age up to ``max_level``."""
    rise = jnp.asarray(SLOPES)[slope] * jnp.arange(MAX_CHUNKS)
    return jnp.minimum(max_level, level + (rise + 8) // 16).astype(jnp.int32)


def chunks_needed(frames: Int[Array, ""], offset: Int[Array, ""]) -> Int[Array, ""]:
    """Chunks that cover the ``frames`` (10 ms) before the packet, and the two that prime the vocoder.

    ``offset`` as in ``Header``. libopus up to 1.6.1 takes an offset of 8 whatever it is.
    """
    rows = jnp.maximum(0, (4 * frames + offset + 3) // 4)
    return jnp.clip(((rows + 1) // 2 + 1) // 2, 0, MAX_CHUNKS)


def _max_level_choices(header: Header) -> Int[Array, ""]:
    """How many maximum levels below 15 are possible; 0 where it is not coded."""
    return jnp.where(header.slope > 0, jnp.maximum(0, _TOP_LEVEL - 1 - header.level), 0)


def _write_header(coder: Encoder, header: Header) -> Encoder:
    extra, low = jnp.divmod(NEWEST_OFFSET - jnp.clip(header.offset, OLDEST_OFFSET, NEWEST_OFFSET), 32)
    far = (extra > 0).astype(jnp.int32)
    # Half of the probability of the maximum level is for 15; the other half is shared by those between.
    n = _max_level_choices(header)
    highest = (header.max_level >= _TOP_LEVEL) | (n == 0)
    index = jnp.clip(header.max_level - header.level - 1, 0, jnp.maximum(n - 1, 0))
    survivals = [
        (NUM_LEVELS - header.level, NUM_LEVELS - header.level - 1, NUM_LEVELS),
        (len(SLOPES) - header.slope, len(SLOPES) - header.slope - 1, len(SLOPES)),
        (2 - far, 1 - far, 2),
        (jnp.where(far, 256 - extra, 1), jnp.where(far, 255 - extra, 0), jnp.where(far, 256, 1)),
        (32 - low, 31 - low, 32),
        (jnp.where(highest, 2 * n, n - index), jnp.where(highest, n, n - index - 1), 2 * n),
    ]
    survivals = jnp.array(survivals)
    # What is not coded is certain.
    survivals = jnp.where(survivals[:, 2:] == 0, jnp.array([1, 0, 1]), survivals)
    return jax.lax.fori_loop(0, len(survivals), lambda i, c: range_coder.encode(c, *survivals[i]), coder)


def _read_header(coder: Decoder) -> tuple[Decoder, Header]:
    def field(carry, total):
        coder, previous = carry
        # The high part of the offset, alone in having 256 values, is there if the flag before it is set.
        coder, symbol = range_coder.decode_uniform(coder, jnp.where((total == 256) & (previous == 0), 1, total))
        return (coder, symbol), symbol

    totals = jnp.array([NUM_LEVELS, len(SLOPES), 2, 256, 32])
    (coder, low), (level, slope, _, extra, _) = jax.lax.scan(field, (coder, jnp.int32(0)), totals)
    header = Header(level, slope, jnp.full_like(level, _TOP_LEVEL), NEWEST_OFFSET - 32 * extra - low)
    n = _max_level_choices(header)
    total = jnp.maximum(2 * n, 1)
    at = range_coder.target(coder, total).astype(jnp.int32)
    highest = at >= n
    upper = jnp.where(n == 0, 1, jnp.where(highest, 2 * n, at + 1))
    lower = jnp.where(n == 0, 0, jnp.where(highest, n, at))
    coder = range_coder.consume(coder, upper, lower, total)
    return coder, header._replace(max_level=jnp.where(highest, _TOP_LEVEL, level + n - at))


def _write(capacity, tables, header, state, latents, chunks, max_bytes):
    coder = _write_header(range_coder.start_encoder(capacity), header)
    marks = _Marks(jnp.zeros(MARKS, jnp.uint32), jnp.zeros(MARKS, jnp.int32)).note(0, coder)
    coder = symbols.encode_all(coder, tables.state[header.level], state)
    fits = range_coder.tell(coder.range, coder.position) <= 8 * max_bytes
    marks = marks.note(1, coder)
    rows = tables.latent[level_schedule(header.level, header.slope, header.max_level)]

    def more(carry):
        _, _, fits, count = carry
        return fits & (count < chunks)

    def chunk(carry):
        coder, marks, _, count = carry
        longer = symbols.encode_all(coder, rows[count], latents[count])
        fits = range_coder.tell(longer.range, longer.position) <= 8 * max_bytes
        kept = [jnp.where(fits, new, old) for new, old in zip(longer[:3], coder[:3], strict=True)]
        marks = marks.note(2 + count, longer, fits)
        return Encoder(*kept, longer.digits), marks, fits, count + fits

    coder, marks, _, count = jax.lax.while_loop(more, chunk, (coder, marks, fits, jnp.int32(0)))
    length = jnp.where(count > 0, (range_coder.tell(coder.range, coder.position) + 7) // 8, 0)
    return Written(range_coder.finish(coder), length, count, marks.eighths())


def write(
    tables: Distributions,
    header: Header,
    state: Int[Array, "state"],
    latents: Int[Array, "26 latent"],
    chunks: Int[Array, ""],
    max_bytes: Int[Array, ""],
    capacity: int = MAX_PAYLOAD_BYTES,
) -> Written:
    """Code a payload; chunks that do not fit are left out, the oldest first.

    Args:
      tables: of the weights.
      header: as wanted; it is not checked.
      state: symbols at the header's level.
      latents: symbols of the chunks, newest first, each at the level of ``level_schedule``.
      chunks: how many of them are wanted, 1 .. 26.
      max_bytes: 0 .. capacity.
    """
    header, latents, state = jax.tree.map(lambda a: jnp.asarray(a, jnp.int32), (header, latents, state))
    chunks, max_bytes = jnp.asarray(chunks, jnp.int32), jnp.asarray(max_bytes, jnp.int32)
    return _one_by_one(partial(_write, capacity))(tables, header, state, latents, chunks, max_bytes)


def payload_bits(
    tables: Distributions, header: Header, state: Int[Array, "state"], latents: Int[Array, "26 latent"]
) -> Float[Array, "28"]:
    """Bits after the header, the state and each of 26 chunks, exact to 1/8; NaN beyond 4 kB."""
    capacity = 4 * MAX_PAYLOAD_BYTES
    eighths = write(tables, header, state, latents, MAX_CHUNKS, capacity, capacity).eighths
    return jnp.where(eighths < 0, jnp.nan, eighths / 8)


def _read(tables, data, length, announced, frames):
    coder, header = _read_header(range_coder.start_decoder(data, length))
    marks = _Marks(jnp.zeros(MARKS, jnp.uint32), jnp.zeros(MARKS, jnp.int32)).note(0, coder)
    coder, state, legal = symbols.decode_all(coder, tables.state[header.level])
    whole = legal & range_coder.is_certain(coder, length)
    marks = marks.note(1, coder)
    levels = level_schedule(header.level, header.slope, header.max_level)
    rows = tables.latent[levels]
    wanted = jnp.maximum(1, chunks_needed(frames, header.offset))

    def more(carry):
        coder, _, _, good, count = carry
        end = jnp.where(announced > 0, count >= announced, (count > 0) & range_coder.is_end(coder, length))
        return good & ~end & (count < wanted)

    def chunk(carry):
        coder, marks, latents, _, count = carry
        coder, symbol, legal = symbols.decode_all(coder, rows[count])
        good = legal & range_coder.is_certain(coder, length)
        latents = latents.at[count].set(jnp.where(good, symbol, 0))
        return coder, marks.note(2 + count, coder, good), latents, good, count + good

    nothing = jnp.zeros(rows.shape[:2], jnp.int32)
    _, marks, latents, _, count = jax.lax.while_loop(more, chunk, (coder, marks, nothing, whole, jnp.int32(0)))
    return Payload(header, levels, state, latents, count, count > 0, marks.eighths())


def read(
    tables: Distributions,
    data: UInt8[Array, "capacity"],
    length: Int[Array, ""],
    announced: Int[Array, ""] | int = 0,
    frames: Int[Array, ""] | int = ALL_FRAMES,
) -> Payload:
    """Decode a payload as far as its bytes go; of garbage, whatever it happens to mean.

    A chunk counts if the bytes there are determine it, so what is left of a payload that was cut is right. libopus
    codes no number of chunks and stops reading when fewer than 8 bits remain, which loses chunks that cost less. Here
    the end is the first place where the writer, had it stopped there, would have left just these bytes. So no chunk is
    ever invented, and one is lost only where the payload without it has the very same bytes: then no reader could know.
    Announce the number of chunks where that matters.

    Args:
      tables: of the weights that wrote it.
      data: the bytes; those beyond ``length`` do not matter.
      length: 0 .. capacity.
      announced: number of chunks, 0 if it is not known.
      frames: how far before the packet something is missing; chunks older than that are left alone.
    """
    length, announced, frames = (jnp.asarray(number, jnp.int32) for number in (length, announced, frames))
    return _one_by_one(_read)(tables, data, length, announced, frames)
