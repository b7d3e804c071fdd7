"""The tables that sender and receiver share: what the entropy coder knows of every level and dimension."""

from typing import NamedTuple

from jaxtyping import Array, UInt8


class CodingTables(NamedTuple):
    """Laplace parameters of all levels in 8 bits; part of the wire format.

    ``p0`` is the probability of the symbol 0 in 1/256, ``r`` the decay of the magnitudes in 1/256. A dimension with
    ``r = 0`` or ``p0 = 255`` at a level is always 0 there and costs nothing.
    """

    latent_p0: UInt8[Array, "16 latent"]
    latent_r: UInt8[Array, "16 latent"]
    state_p0: UInt8[Array, "16 state"]
    state_r: UInt8[Array, "16 state"]
