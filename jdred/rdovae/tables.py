"""The tables that sender and receiver share: what the entropy coder knows of every level and dimension."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, UInt8

ALWAYS_ZERO_P0 = 255


class CodingTables(NamedTuple):
    """Laplace parameters of all levels in 8 bits; part of the wire format.

    ``p0`` is the probability of the symbol 0 in 1/256, ``r`` the decay of the magnitudes in 1/256. A dimension with
    ``r = 0`` or ``p0 = 255`` at a level is always 0 there and costs nothing.
    """

    latent_p0: UInt8[Array, "16 latent"]
    latent_r: UInt8[Array, "16 latent"]
    state_p0: UInt8[Array, "16 state"]
    state_r: UInt8[Array, "16 state"]


class QuantizerTables(NamedTuple):
    """A quantiser in 8 bits, in units of 1/256: libopus's tables of the latents or of the states."""

    scale: UInt8[Array, "16 dim"]
    """Steps per unit; 0 where the symbol is always 0."""
    dead_zone: UInt8[Array, "16 dim"]
    r: UInt8[Array, "16 dim"]
    p0: UInt8[Array, "16 dim"]


def coded(p0: UInt8[np.ndarray, "..."], r: UInt8[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Where a symbol can be other than zero."""
    return (r > 0) & (p0 < ALWAYS_ZERO_P0)
