"""What the recurrent networks of LPCNet read, and how samples come in bunches.

Before each sample three indices are known: the last sample, the linear prediction, the last excitation; and a fourth
where a network wants it (``LPCNetConfig.long_term``): the excitation of one pitch period ago, ``AHEAD`` samples early.
Tables turn them into gates. GRU A steps once a bunch and reads the indices of the bunch's first sample and of those
before it, as many in all as a bunch has samples. Within the bunch GRU B alone follows: it reads those of each sample.
So every sample is drawn from a distribution that knows all before it and its exact prediction; only GRU A is late.

The idea is that of bunched LPCNet (R. Vipperla et al., "Bunched LPCNet: Vocoder for Low-cost Neural Text-To-Speech
Systems", Interspeech 2020), which draws the later samples of a bunch from output layers of their own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdred.config import FRAME_SAMPLES, NUM_BANDS
from jdred.dsp import mulaw
from jdred.dsp.pitch import period_from_feature
from jdred.vocoder.sampling import between

AHEAD = 2
"""Samples by which the excitation of one pitch period ago is read early: periods change, and are whole samples here."""

Indices = Int[Array, "..."] | Float[Array, "..."]
"""Indices, or values between them: the tables are then interpolated, so that there is a slope."""
LookUp = Callable[[Float[Array, "tables 256 gates"], Indices], Float[Array, "... gates"]]
"""``look_up`` or what does the same."""


def look_up(tables: Float[Array, "tables 256 gates"], indices: Indices) -> Float[Array, "... gates"]:
    """Sum of the tables' rows, one index a table."""
    if jnp.issubdtype(indices.dtype, jnp.floating):
        low, part = between(indices)
        rows = zip(tables, low, part[..., None], strict=True)
        return sum((1 - part) * table[low] + part * table[low + 1] for table, low, part in rows)
    if indices.ndim == 1:
        # One stream: a single look-up of all rows is faster. Of many it would hold too much.
        flat = tables.reshape(-1, tables.shape[-1])
        return jnp.take(flat, indices + tables.shape[1] * jnp.arange(len(tables)), axis=0).sum(axis=0)
    if indices.ndim > 2:
        # Of a whole sequence: table by table, or the compiler weaves all look-ups into one slow loop.
        def add(total, x):
            table, index = x
            return total + table[index], None

        return jax.lax.scan(add, jnp.zeros((*indices.shape[1:], tables.shape[-1])), (tables, indices))[0]
    return sum(table[index] for table, index in zip(tables, indices, strict=True))


class Tables(NamedTuple):
    """What indices add to gates, by place in the bunch, the first sample read comes first, and by what is known."""

    gru_a: Float[Array, "bunch known 256 gates_a"]
    gru_b: Float[Array, "bunch known 256 gates_b"] | None
    """None where a bunch is one sample: GRU A has read all then."""

    @property
    def bunch(self) -> int:
        """Samples in a bunch."""
        return len(self.gru_a)

    @property
    def known(self) -> int:
        """Indices known before a sample."""
        return self.gru_a.shape[1]

    @property
    def long_term(self) -> bool:
        """The excitation of one pitch period ago is among them."""
        return self.known == known_before(long_term=True)

    def of_bunch(self, read: Indices, look_up: LookUp = look_up) -> Float[Array, "... gates_a"]:
        """Gates of GRU A, from all that it reads for a bunch, the oldest sample first."""
        return look_up(self.gru_a.reshape(-1, *self.gru_a.shape[2:]), read)

    def of_sample(self, place: int, read: Indices, look_up: LookUp = look_up) -> Float[Array, "... gates_b"] | float:
        """Gates of GRU B, from what is known before the sample at one place of a bunch."""
        return 0.0 if self.gru_b is None else look_up(self.gru_b[place], read)


def known_before(*, long_term: bool) -> int:
    """Indices known before a sample."""
    return 4 if long_term else 3


def read_by_bunch(indices: Indices, bunch: int) -> Indices:
    """``[known, samples, ...]``, before each sample from silence on, to ``[known * bunch, steps, ...]`` for GRU A."""
    known = len(indices)
    silence = jnp.full((known, bunch - 1, *indices.shape[2:]), mulaw.ZERO, indices.dtype)
    shifted = jnp.concatenate([silence, indices[:, : indices.shape[1] - bunch + 1]], axis=1)
    by_place = jnp.moveaxis(shifted.reshape(known, -1, bunch, *indices.shape[2:]), 2, 0)
    return by_place.reshape(known * bunch, *by_place.shape[2:])


def gates_by_sample(tables: Tables, indices: Indices) -> Float[Array, "samples ... gates_b"] | float:
    """``Tables.of_sample`` of all samples."""
    if tables.gru_b is None:
        return 0.0
    by_place = indices.reshape(tables.known, -1, tables.bunch, *indices.shape[2:])
    gates = [tables.of_sample(place, by_place[:, :, place]) for place in range(tables.bunch)]
    return jnp.stack(gates, axis=1).reshape(*indices.shape[1:], -1)


def lag(features: Float[Array, "... 20"]) -> Int[Array, "..."]:
    """How many samples before the one to come the excitation is that stands for one pitch period ago: 30 .. 253."""
    return period_from_feature(features[..., NUM_BANDS]) - AHEAD


def one_period_ago(
    excitation: Float[Array, "samples ..."] | Int[Array, "samples ..."], features: Float[Array, "rows ... 20"]
) -> Float[Array, "samples ..."] | Int[Array, "samples ..."]:
    """The excitation ``AHEAD`` samples after the one a pitch period before each sample; silence before the first.

    Args:
      features: whose pitch it is, 160 samples a row; the last row may have fewer.
    """
    samples = len(excitation)
    lags = jnp.repeat(lag(features), FRAME_SAMPLES, axis=0)[:samples]
    then = jnp.arange(samples).reshape(-1, *[1] * (excitation.ndim - 1)) - lags
    return jnp.where(then < 0, mulaw.ZERO, jnp.take_along_axis(excitation, jnp.maximum(then, 0), axis=0))
