"""Integers under a two-sided geometric (Laplace) law with an explicit probability of zero.

A symbol is first one of {0, +, -}; a size above 0 follows in base 7 with an escape: ``size - 1`` is coded as digits of
0 .. 7, where a 7 means "seven, and more". Both use rows of survivals out of 32768, so that one search serves both.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt8, UInt16

from jdred.bitstream import range_coder
from jdred.bitstream.range_coder import Decoder, Encoder

TOTAL = 1 << 15
MAX_SYMBOL = (1 << 15) - 1
"""Larger sizes are neither written nor read; it bounds the work on garbage."""
_ESCAPE = 7

Rows = UInt16[Array, "... 2 9"]


def survival_rows(p0: UInt8[Array, "..."], r: UInt8[Array, "..."]) -> Rows:
    """Survivals of {0, +, -} (row 0) and of a base-7 digit (row 1) from probabilities in 1/256.

    Column k is the survival at or above outcome k; the row ends in zeros. A dimension that is off is certain to be 0.
    """
    p0, r = p0.astype(jnp.uint32), r.astype(jnp.uint32)
    nonzero = jnp.where((r == 0) | (p0 == 255), 0, TOTAL - 128 * p0)
    zero = jnp.zeros_like(p0)
    kind = [jnp.full_like(p0, TOTAL), nonzero, nonzero // 2]
    digit = [kind[0]]
    for i in range(1, _ESCAPE + 1):
        # The floor leaves every outcome above this one a probability of at least 1/32768.
        digit.append(jnp.maximum(_ESCAPE + 1 - i, digit[-1] * (128 * r) >> 15))
    return jnp.stack([jnp.stack(kind + 6 * [zero], -1), jnp.stack([*digit, zero], -1)], -2).astype(jnp.uint16)


def _encode_outcome(coder: Encoder, row: UInt16[Array, "9"], outcome: Int[Array, ""]) -> Encoder:
    return range_coder.encode(coder, row[outcome], row[outcome + 1], TOTAL)


def _decode_outcome(coder: Decoder, row: UInt16[Array, "9"]) -> tuple[Decoder, Int[Array, ""]]:
    outcome = jnp.sum(range_coder.target(coder, TOTAL) < row[1:]).astype(jnp.int32)
    return range_coder.consume(coder, row[outcome], row[outcome + 1], TOTAL), outcome


def encode(coder: Encoder, rows: UInt16[Array, "2 9"], symbol: Int[Array, ""]) -> Encoder:
    """Append one symbol, its size clipped to ``MAX_SYMBOL``; where it is certain to be 0, that is what is coded."""
    symbol = jnp.where(rows[0, 1] > 0, symbol, 0)
    coder = _encode_outcome(coder, rows[0], jnp.where(symbol > 0, 1, jnp.where(symbol < 0, 2, 0)))

    def more(carry):
        return carry[1] >= 0

    def digit(carry):
        coder, rest = carry
        return _encode_outcome(coder, rows[1], jnp.minimum(rest, _ESCAPE)), rest - _ESCAPE

    rest = jnp.clip(jnp.abs(symbol), 0, MAX_SYMBOL) - 1
    return jax.lax.while_loop(more, digit, (coder, rest))[0]


def decode(coder: Decoder, rows: UInt16[Array, "2 9"]) -> tuple[Decoder, Int[Array, ""]]:
    """Take one symbol; a size above ``MAX_SYMBOL`` is an error in the bytes."""
    coder, kind = _decode_outcome(coder, rows[0])

    def more(carry):
        _, size, escaped = carry
        return escaped & (size <= MAX_SYMBOL)

    def digit(carry):
        coder, size, _ = carry
        coder, outcome = _decode_outcome(coder, rows[1])
        return coder, size + outcome, outcome == _ESCAPE

    coder, size, _ = jax.lax.while_loop(more, digit, (coder, (kind > 0).astype(jnp.int32), kind > 0))
    return coder, jnp.where(kind == 2, -size, size)


def encode_all(coder: Encoder, rows: UInt16[Array, "n 2 9"], symbols: Int[Array, "n"]) -> Encoder:
    """Append symbols, each under its own rows."""
    return jax.lax.fori_loop(0, symbols.shape[0], lambda i, c: encode(c, rows[i], symbols[i]), coder)


def decode_all(coder: Decoder, rows: UInt16[Array, "n 2 9"]) -> tuple[Decoder, Int[Array, "n"], Bool[Array, ""]]:
    """Take symbols, each under its own rows, and say whether all sizes are legal."""
    coder, symbols = jax.lax.scan(decode, coder, rows)
    return coder, symbols, jnp.all(jnp.abs(symbols) <= MAX_SYMBOL)
