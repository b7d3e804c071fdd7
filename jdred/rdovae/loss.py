"""Distortion of decoded features and the rate-distortion objective.

The objective is scaled by ``1 / sqrt(lambda)`` on the distortion and ``sqrt(lambda)`` on the rate: the same optimum as
``D + lambda R``, with gradients of like size at every level.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdred.config import CHUNK_FRAMES, NUM_BANDS
from jdred.dsp.bands import log_energies_from_cepstrum
from jdred.rdovae import RDOVAE, DecoderInput
from jdred.rdovae.decoder import Cuts
from jdred.rdovae.quantizer import Laplace, compress, dequantize, pvq, round_straight_through
from jdred.rdovae.rate import hard_bits, level_lambda, soft_bits

LARGEST_LOG_ENERGY = 12.0
"""Clamp of log10 band energy: speech stays below 9, an untrained network may not."""


@dataclass(frozen=True)
class RDOVAELossConfig:
    lambda_min: float = 2e-4
    lambda_max: float = 0.04
    state_weight: float = 0.04
    """One state serves about 25 latents."""
    hard_weight: float = 0.1
    first_chunk_weight: float = 0.03
    distortion: str = "loudness"
    """``loudness`` (libopus 1.6) or ``paper``."""
    latent_ramp_steps: float = 300.0
    """The rate counts in full only after some steps; 0: at once, for weights that are trained already."""
    state_ramp_steps: float = 3000.0


class Runs(NamedTuple):
    """Decoder runs of a batch: latents of one phase, newest first, cut into payload-like pieces.

    ``phases`` = 2 (latents t, t-2, ...); ``chunks`` per phase; ``batch`` sequences.
    """

    newest: Int[Array, "chunks phases batch"]
    """1 where a run begins (its newest chunk)."""
    level: Int[Array, "chunks phases batch"]
    """Quantiser level of each chunk."""


def distortion(
    decoded: Float[Array, "... 20"], true: Float[Array, "... 20"], band_power: Float[Array, "... 18"]
) -> Float[Array, "..."]:
    """Distortion of feature rows (libopus 1.6's training loss).

    Args:
      decoded, true: feature rows.
      band_power: mean over the run of the squared band loudness of ``true``, which normalises the loudness error.
    """
    bands = log_bands(decoded) - log_bands(true)
    weights = 1.15 - jnp.arange(NUM_BANDS) / 36
    error = jnp.mean(weights * (loudness(decoded) - loudness(true)) ** 2 / (band_power + 1e-9), axis=-1)
    voiced = jax.nn.relu(true[..., 19] + 0.5) ** 2
    pitch = 2 * jnp.abs(decoded[..., 18] - true[..., 18])
    correlation = (decoded[..., 19] - true[..., 19]) ** 2
    return (
        0.05 * jnp.mean(bands**2, axis=-1)
        + error
        + jnp.minimum(20 * error, 25 * error**2)
        + (14 / 18) * pitch * voiced
        + (2 / 18) * correlation
    )


def paper_distortion(decoded: Float[Array, "... 20"], true: Float[Array, "... 20"]) -> Float[Array, "..."]:
    """Distortion of the ICASSP 2023 paper's generation, pitch in the log2 domain (libopus 1.5)."""
    cepstra = jnp.mean((decoded[..., :NUM_BANDS] - true[..., :NUM_BANDS]) ** 2, axis=-1)
    voiced = jax.nn.relu(true[..., 19] + 0.5) ** 2
    pitch = 2 * jnp.abs(decoded[..., 18] - true[..., 18])
    return cepstra + (10 / 18) * pitch * voiced + (1 / 18) * (decoded[..., 19] - true[..., 19]) ** 2


def log_bands(rows: Float[Array, "... 20"]) -> Float[Array, "... 18"]:
    """log10 band energies of feature rows."""
    return log_energies_from_cepstrum(rows[..., :NUM_BANDS])


def loudness(rows: Float[Array, "... 20"]) -> Float[Array, "... 18"]:
    """Band energy to the power 1/4."""
    return 10 ** (0.25 * jnp.minimum(log_bands(rows), LARGEST_LOG_ENERGY))


def run_mean(x: Float[Array, "chunks ... bands"], newest: Int[Array, "chunks ..."], runs: int):
    """Mean of x over each run, given back at every chunk of the run."""
    member = jax.nn.one_hot(jnp.cumsum(newest, axis=0) - 1, runs)
    total = jnp.einsum("t...r,t...b->...rb", member, x)
    count = jnp.maximum(jnp.sum(member, axis=0), 1)[..., None]
    return jnp.einsum("t...r,...rb->t...b", member, total / count)


def targets(features: Float[Array, "frames batch 20"], chunks: int) -> Float[Array, "chunks 2 batch 4 20"]:
    """Feature rows that each chunk of each phase describes, newest chunk and newest row first.

    Latent k covers frames 2k-2 .. 2k+1; phase 0 ends at the last latent, phase 1 one latent earlier.
    """
    frames = features.shape[0]

    def phase(p: int) -> Array:
        end = frames - 2 * p
        rows = features[end - CHUNK_FRAMES * chunks : end][::-1]
        return jnp.moveaxis(rows.reshape(chunks, CHUNK_FRAMES, *rows.shape[1:]), 1, 2)

    return jnp.stack([phase(0), phase(1)], axis=1)


def phase_latents(encoded: Float[Array, "latents batch dim"], chunks: int) -> Float[Array, "chunks 2 batch dim"]:
    """Latents (or states) of both phases, newest first, in the order of ``targets``."""
    newest_first = encoded[::-1]
    return jnp.stack([newest_first[p : p + 2 * chunks : 2] for p in range(2)], axis=1)


def _bits(z: Array, at: Laplace) -> tuple[Array, Array, Array]:
    """Compressed values, soft bits, hard bits."""
    u = compress(z, at)
    return u, soft_bits(u, at), hard_bits(jnp.floor(u + 0.5), at)


def _branches(u: Array, at: Laplace, key: Array) -> Array:
    """Dequantised values of the hard (straight-through) and the noise branch, stacked on axis 2."""
    noise = jax.random.uniform(key, u.shape, minval=-0.5, maxval=0.5)
    return jnp.stack([dequantize(round_straight_through(u), at), dequantize(u + noise, at)], axis=2)


class Coded(NamedTuple):
    """What coding made of a batch: bits of every chunk, and what the decoder says."""

    latent_soft: Float[Array, "chunks phases batch"]
    latent_hard: Float[Array, "chunks phases batch"]
    state_soft: Float[Array, "chunks phases batch"]
    state_hard: Float[Array, "chunks phases batch"]
    decoded: Float[Array, "chunks phases branches batch 4 20"]
    """Branch 0 from hard symbols (straight-through), branch 1 from noisy values; newest chunk and row first."""


def code(model: RDOVAE, features: Float[Array, "frames batch 20"], runs: Runs, key: Array) -> Coded:
    """Encode, quantise and decode both phases, in the hard and the noise branch.

    Args:
      features: time first, an even number of frames.
    """
    chunks, _, batch = runs.level.shape
    frames = features.shape[0]
    pairs = jnp.moveaxis(features.reshape(frames // 2, 2, batch, -1), 1, 2).reshape(frames // 2, batch, -1)
    state = jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, *a.shape)), model.encoder.init_state())
    _, encoded = model.encoder.scan(state, pairs)
    latents, states = phase_latents(encoded.latent, chunks), phase_latents(encoded.state, chunks)

    key_latent, key_state = jax.random.split(key)
    at_latent, at_state = model.latent_quantizer.at(runs.level), model.state_quantizer.at(runs.level)
    u, latent_soft, latent_hard = _bits(latents, at_latent)
    values = _branches(u, at_latent, key_latent)
    if model.config.pvq_pulses:
        coded = jnp.stack([pvq(states, model.config.pvq_pulses)] * 2, axis=2)
        state_soft = state_hard = jnp.zeros(runs.level.shape)
    else:
        u, state_soft, state_hard = _bits(states, at_state)
        coded = _branches(u, at_state, key_state)

    where = jnp.broadcast_to(runs.newest[:, :, None] > 0, coded.shape[:-1])
    level = jnp.broadcast_to(runs.level[:, :, None], coded.shape[:-1])
    _, decoded = model.decoder.scan(model.decoder.start(coded[0]), DecoderInput(values, level), Cuts(where, coded))
    return Coded(latent_soft, latent_hard, state_soft, state_hard, decoded)


def weigh(
    coded: Coded,
    features: Float[Array, "frames batch 20"],
    runs: Runs,
    step: Int[Array, ""],
    config: RDOVAELossConfig,
    max_runs: int,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The training objective of what was coded.

    Args:
      max_runs: the most runs that one phase is cut into.
    Returns:
      loss and figures: ``distortion`` (hard branch, unscaled), bits per latent and per state.
    """
    true = targets(features, len(runs.level))
    if config.distortion == "paper":
        per_row = paper_distortion(coded.decoded, true[:, :, None])
    else:
        power = run_mean(jnp.mean(loudness(true) ** 2, axis=-2), runs.newest, max_runs)
        per_row = distortion(coded.decoded, true[:, :, None], power[:, :, None, :, None, :])
    per_chunk = jnp.mean(per_row, axis=-1)

    root = jnp.sqrt(level_lambda(runs.level, config.lambda_min, config.lambda_max))
    scaled = per_chunk / root[:, :, None]
    ramp_latent = 1 - 0.9 / (1 + (step + 1) / max(config.latent_ramp_steps, 1e-9))
    ramp_state = 1 - 0.99 / (1 + (step + 1) / max(config.state_ramp_steps, 1e-9)) ** 2

    def rate(latent: Array, state: Array) -> Array:
        return jnp.mean(root * (ramp_latent * latent + config.state_weight * ramp_state * state))

    total = rate(coded.latent_soft, coded.state_soft) + jnp.mean(scaled)
    total += config.hard_weight * rate(coded.latent_hard, coded.state_hard)
    first = jnp.sum(scaled[:, :, 0] * runs.newest) / jnp.sum(runs.newest)
    total = (1 - config.first_chunk_weight) * total + config.first_chunk_weight * first
    figures = {
        "distortion": jnp.mean(per_chunk[:, :, 0]),
        "latent_bits": jnp.mean(coded.latent_hard),
        "state_bits": jnp.mean(coded.state_hard),
    }
    return total, figures


def rate_distortion(
    model: RDOVAE,
    features: Float[Array, "frames batch 20"],
    runs: Runs,
    key: Array,
    step: Int[Array, ""],
    config: RDOVAELossConfig,
    max_runs: int,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """``code`` a batch and ``weigh`` the outcome."""
    return weigh(code(model, features, runs, key), features, runs, step, config, max_runs)


def num_chunks(frames: int) -> int:
    """Chunks per phase of a sequence: every latent but the first, whose frames begin before the sequence."""
    return (frames // 2 - 1) // 2
