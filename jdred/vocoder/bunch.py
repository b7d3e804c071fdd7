"""What the recurrent networks of LPCNet read, and how samples come in bunches.

Before each sample three indices are known: the last sample, the linear prediction, the last excitation. Tables turn
them into gates. GRU A steps once a bunch and reads the indices of the bunch's first sample and of those before it, as
many in all as a bunch has samples. Within the bunch GRU B alone follows: it reads those of each sample. So every sample
is drawn from a distribution that knows all before it and its exact prediction; only GRU A is late.

The idea is that of bunched LPCNet (R. Vipperla et al., "Bunched LPCNet: Vocoder for Low-cost Neural Text-To-Speech
Systems", Interspeech 2020), which draws the later samples of a bunch from output layers of their own.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdred.dsp import mulaw
from jdred.vocoder.sampling import between

READ = 3
"""Indices known before a sample."""

Indices = Int[Array, "..."] | Float[Array, "..."]
"""Indices, or values between them: the tables are then interpolated, so that there is a slope."""


class Tables(NamedTuple):
    """What indices add to gates; groups of ``READ`` tables by place in the bunch, the first sample read comes first."""

    gru_a: Float[Array, "tables 256 gates_a"]
    gru_b: Float[Array, "tables 256 gates_b"] | None
    """None where a bunch is one sample: GRU A has read all then."""

    @property
    def bunch(self) -> int:
        """Samples in a bunch."""
        return len(self.gru_a) // READ

    def of_bunch(self, read: Indices) -> Float[Array, "... gates_a"]:
        """Gates of GRU A, from all that it reads for a bunch, the oldest sample first."""
        return look_up(self.gru_a, read)

    def of_sample(self, place: int, read: Indices) -> Float[Array, "... gates_b"] | float:
        """Gates of GRU B, from what is known before the sample at one place of a bunch."""
        return 0.0 if self.gru_b is None else look_up(self.gru_b[READ * place : READ * (place + 1)], read)


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
    return sum(table[index] for table, index in zip(tables, indices, strict=True))


def read_by_bunch(indices: Indices, bunch: int) -> Indices:
    """``[3, samples, ...]``, known before each sample from silence on, to ``[3 bunch, steps, ...]`` for GRU A."""
    silence = jnp.full((READ, bunch - 1, *indices.shape[2:]), mulaw.ZERO, indices.dtype)
    shifted = jnp.concatenate([silence, indices[:, : indices.shape[1] - bunch + 1]], axis=1)
    by_place = jnp.moveaxis(shifted.reshape(READ, -1, bunch, *indices.shape[2:]), 2, 0)
    return by_place.reshape(READ * bunch, *by_place.shape[2:])


def gates_by_sample(tables: Tables, indices: Indices) -> Float[Array, "samples ... gates_b"] | float:
    """``Tables.of_sample`` of all samples."""
    if tables.gru_b is None:
        return 0.0
    by_place = indices.reshape(READ, -1, tables.bunch, *indices.shape[2:])
    gates = [tables.of_sample(place, by_place[:, :, place]) for place in range(tables.bunch)]
    return jnp.stack(gates, axis=1).reshape(*indices.shape[1:], -1)
