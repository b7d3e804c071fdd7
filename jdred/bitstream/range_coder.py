"""The range coder of Opus (RFC 6716 section 4.1) as pure functions on a small state.

A symbol is given by survivals: out of ``total``, ``upper`` lies at or above the symbol's lower end and ``lower`` above
its upper end (the RFC's fl = total - upper, fh = total - lower). Everything of the coder then is one product each; a
symbol that is certain (``upper = total``, ``lower = 0``) changes nothing and costs nothing. ``total`` is at most 65536.

The encoder does not chase carries: it stores digits of base 256 that may still hold one, and ``finish`` adds them up.
So an older encoder is resumed by its three numbers alone; digits beyond its position have no meaning. Nothing raises:
an encoder whose ``tell`` exceeds its capacity and a decoder beyond the end of its bytes are for the caller to judge.
Raw bits at the end of the buffer are not offered; the redundancy has none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt8, UInt32

_BYTES_PER_STEP = 3
"""A range above 2**23 divided by at most 2**16 needs at most three bytes to get above 2**23 again."""
_MASK = 0x7FFFFFFF
_START_RANGE = 1 << 31

Number = UInt32[Array, ""]


class Encoder(NamedTuple):
    """``low``: 31 bits and a carry; ``range``: above 2**23; ``position``: digits that are out."""

    low: Number
    range: Number
    position: Int[Array, ""]
    digits: UInt32[Array, "capacity_and_three"]


class Decoder(NamedTuple):
    """``value``: distance of the code from the top of the range; ``position``: bytes that are used up and out of sight.

    ``words``: the inverted bytes, four from every place.
    """

    value: Number
    range: Number
    position: Int[Array, ""]
    words: UInt32[Array, "places"]


def start_encoder(capacity: int) -> Encoder:
    """An encoder of at most ``capacity`` bytes."""
    digits = jnp.zeros(capacity + _BYTES_PER_STEP, jnp.uint32)
    return Encoder(jnp.uint32(0), jnp.uint32(_START_RANGE), jnp.int32(0), digits)


def start_decoder(data: UInt8[Array, "capacity"], length: Int[Array, ""]) -> Decoder:
    """A decoder of the first ``length`` bytes; after them it reads zeros."""
    octets = jnp.where(jnp.arange(data.shape[0]) < length, data, 0).astype(jnp.uint32)
    octets = jnp.pad(octets, (0, 8))
    words = ~(octets[:-3] << 24 | octets[1:-2] << 16 | octets[2:-1] << 8 | octets[3:])
    return Decoder(words[0] >> 1, jnp.uint32(_START_RANGE), jnp.int32(0), words)


def _split(size: Number, upper: Array, lower: Array, total: Array | int) -> tuple[Number, Number]:
    """Upper and lower end of a symbol in the range, counted from its top downwards (section 4.1.2)."""
    total = jnp.uint32(total)
    unit = size // total
    return jnp.where(upper == total, size, unit * upper.astype(jnp.uint32)), unit * lower.astype(jnp.uint32)


def _missing_bytes(size: Number) -> UInt32[Array, ""]:
    """How many bytes must be shifted out until the range exceeds 2**23."""
    return jnp.where(size > 1 << 23, 0, jnp.where(size > 1 << 15, 1, jnp.where(size > 1 << 7, 2, 3))).astype(jnp.uint32)


def encode(coder: Encoder, upper: Array, lower: Array, total: Array | int) -> Encoder:
    """Append one symbol (section 5.1.1)."""
    top, bottom = _split(coder.range, upper, lower, total)
    low, size = coder.low + (coder.range - top), top - bottom
    count = _missing_bytes(size)
    out = jnp.stack([low >> 23, (low >> 15) & 0xFF, (low >> 7) & 0xFF])
    place = jnp.minimum(coder.position, coder.digits.shape[0] - _BYTES_PER_STEP)
    digits = jax.lax.dynamic_update_slice(coder.digits, out, (place,))
    low = jnp.where(count > 0, (low << 8 * count) & _MASK, low)
    return Encoder(low, size << 8 * count, coder.position + count.astype(jnp.int32), digits)


def _final_code(low: Number, size: Number) -> Number:
    """The number with the most trailing zeros such that any bits in their place stay in the range."""
    mask = jnp.uint32(_MASK) >> jax.lax.clz(size)
    outside = (((low + mask) & ~mask) | mask) >= low + size
    mask = jnp.where(outside, mask >> 1, mask)
    return (low + mask) & ~mask


def finish(coder: Encoder) -> UInt8[Array, "capacity"]:
    """All bytes; zeros from ``ceil(tell / 8)`` on (section 5.1.5)."""
    end = _final_code(coder.low, coder.range)
    places = jnp.arange(coder.digits.shape[0] - _BYTES_PER_STEP)
    digits = jnp.where(places < coder.position, coder.digits[:-_BYTES_PER_STEP], 0)
    digits = jnp.where(places == coder.position, end >> 23, digits)
    digits = jnp.where(places == coder.position + 1, (end >> 15) & 0xFF, digits)

    def add(carry, digit):
        return (digit + carry) >> 8, ((digit + carry) & 0xFF).astype(jnp.uint8)

    return jax.lax.scan(add, jnp.uint32(0), digits, reverse=True)[1]


def _word(coder: Decoder, ahead: int) -> UInt32[Array, ""]:
    return coder.words[jnp.minimum(coder.position + ahead, coder.words.shape[0] - 1)]


def target(coder: Decoder, total: Array | int) -> UInt32[Array, ""]:
    """Where the code lies, 0 .. total - 1: the next symbol is the one with ``lower <= target < upper``."""
    total = jnp.uint32(total)
    return jnp.minimum(coder.value // (coder.range // total), total - 1)


def consume(coder: Decoder, upper: Array, lower: Array, total: Array | int) -> Decoder:
    """Drop the symbol that ``target`` was found to lie in (section 4.1.2)."""
    top, bottom = _split(coder.range, upper, lower, total)
    value, size = coder.value - bottom, top - bottom
    count = _missing_bytes(size)
    fresh = ((_word(coder, 3) >> 1) & 0xFFFFFF) >> (8 * (_BYTES_PER_STEP - count))
    value = ((value << 8 * count) | fresh) & _MASK
    return Decoder(value, size << 8 * count, coder.position + count.astype(jnp.int32), coder.words)


def decode_uniform(coder: Decoder, total: Array | int) -> tuple[Decoder, Int[Array, ""]]:
    """Take one of ``total`` equally likely symbols; a total of 1 takes nothing."""
    lower = target(coder, total)
    symbol = (jnp.uint32(total) - 1 - lower).astype(jnp.int32)
    return consume(coder, lower + 1, lower, total), symbol


def is_certain(coder: Decoder, length: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether the ``length`` bytes alone determine all that was decoded: none that might follow could change it."""
    known = 8 * (length - coder.position)
    reach = (jnp.uint32(1) << jnp.clip(31 - known, 0, 31).astype(jnp.uint32)) - 1
    return (known >= 0) & (coder.value >= reach)


def is_end(coder: Decoder, length: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether an encoder that stopped at this symbol would have written exactly the ``length`` bytes."""
    code = ~_word(coder, 0) >> 1
    low = (code - (coder.range - 1 - coder.value)) & _MASK
    whole = (tell(coder.range, coder.position) + 7) // 8 == length
    return whole & (_final_code(low, coder.range) & _MASK == code)


def tell_eighths(size: UInt32[Array, "..."], position: Int[Array, "..."]) -> Int[Array, "..."]:
    """Bits used so far in 1/8 bit, rounded up (section 4.1.6.2); ``range`` and ``position`` of either coder."""
    zeros = jax.lax.clz(size)
    mantissa, eighths = size << zeros >> 16, 32 - zeros.astype(jnp.int32)
    for _ in range(3):
        mantissa = mantissa * mantissa >> 15
        bit = mantissa >> 16
        eighths = 2 * eighths + bit.astype(jnp.int32)
        mantissa = mantissa >> bit
    return 8 * (33 + 8 * position) - eighths


def tell(size: UInt32[Array, "..."], position: Int[Array, "..."]) -> Int[Array, "..."]:
    """Whole bits used so far, rounded up (section 4.1.6.1); ``range`` and ``position`` of either coder."""
    return 1 + 8 * position + jax.lax.clz(size).astype(jnp.int32)
