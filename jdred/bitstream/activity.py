"""Which part of the history is worth sending: silence at both ends is left out."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jdred.config import CHUNK_PACKETS, HISTORY_LATENTS, MAX_CHUNKS

FLAGS_PER_PACKET = 8
"""Activity flags are 2.5 ms apart."""


class Plan(NamedTuple):
    """What to send of the history."""

    start: Int[Array, ""]
    """Index of the newest latent sent; 0 is the newest there is."""
    offset: Int[Array, ""]
    """For the header: every latent skipped moves it 20 ms into the past."""
    chunks: Int[Array, ""]
    """0: send nothing."""
    skipped: Int[Array, ""]
    """Silent latents before the newest one sent; hand it to the next packet's plan."""


def plan(
    flags: Bool[Array, "416"],
    filled: Int[Array, ""],
    chunks: Int[Array, ""],
    offset: Int[Array, ""],
    start: Int[Array, ""] | int = 0,
    previously_skipped: Int[Array, ""] | int = 0,
) -> Plan:
    """Choose start, offset and length of the redundancy.

    A latent is active if any flag of its 40 ms is set. Leading silence is skipped latent by latent; the last chunk is
    an active one or the first silent one before it. At an onset, which the packet itself carries, the start of the
    previous packet is kept once more. Nothing is sent where there is no speech, or where a single chunk would be left
    of it behind silence.

    Args:
      flags: activity every 2.5 ms, newest first; before the history there is silence.
      filled: latents in the history, 0 .. 52.
      chunks: wanted, 0 .. 26.
      offset: of the latent ``start``, see ``payload.Header``.
      start: newest latent that may be sent.
      previously_skipped: ``skipped`` of the previous packet's plan.
    """
    packets = jnp.any(flags.reshape(HISTORY_LATENTS, FLAGS_PER_PACKET), axis=-1)
    active = packets | jnp.append(packets[1:], False)
    onset = (jnp.asarray(previously_skipped) > 0) & packets[0]
    begin = jnp.where(onset, jnp.maximum(start, previously_skipped), start)
    speech = active & (jnp.arange(HISTORY_LATENTS) >= begin)
    first = jnp.where(jnp.any(speech), jnp.argmax(speech), HISTORY_LATENTS)
    silent = first - begin

    at = first + CHUNK_PACKETS * jnp.arange(MAX_CHUNKS)
    spoken = (at < HISTORY_LATENTS) & active[jnp.minimum(at, HISTORY_LATENTS - 1)]
    room = jnp.minimum(chunks, (filled - first + CHUNK_PACKETS - 1) // CHUNK_PACKETS)
    lengths = 1 + jnp.arange(MAX_CHUNKS)
    may_end = (spoken | jnp.append(False, spoken[:-1])) & (lengths <= room)
    count = jnp.max(jnp.where(may_end, lengths, 0))
    return Plan(
        start=first,
        offset=offset - FLAGS_PER_PACKET * (first - start),
        chunks=jnp.where((count == 1) & (silent > 0), 0, count),
        skipped=jnp.where(onset, 0, silent),
    )
