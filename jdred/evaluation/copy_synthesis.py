"""Copy synthesis: a vocoder speaks whole clips from their features, true ones or what a codec made of them.

Every clip stands in silence: the vocoder is primed on it, as the link primes it on the real past, and says the rest.
Row k is spoken at [160 k - 80, 160 k + 80), so the output is aligned with the clip.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jdred.config import (
    CHUNK_FRAMES,
    FRAME_SAMPLES,
    HISTORY_LATENTS,
    MAX_CHUNKS,
    NUM_BANDS,
    PACKET_FRAMES,
    SAMPLE_RATE_HZ,
)
from jdred.dsp.bands import log_energies_from_cepstrum
from jdred.dsp.features import EXTRACTOR, FeatureExtractor, extract
from jdred.evaluation import metrics
from jdred.evaluation import rate_distortion as rd
from jdred.rdovae import RDOVAE
from jdred.rdovae.tables import CodingTables
from jdred.vocoder import Vocoder, VocoderInput

WITHIN_DB = 3.0
"""A frame's energy follows its features when it is not further off."""
GROSS_CENTS = 200.0
WINDOW_SECONDS = MAX_CHUNKS * CHUNK_FRAMES * FRAME_SAMPLES / SAMPLE_RATE_HZ
_extract = jax.jit(extract)


class Through(NamedTuple):
    """Rows that went through the RDO-VAE, and what they cost."""

    rows: Float[np.ndarray, "frames 20"]
    bps: float
    """Bits a second of one copy: state and latents of each window, no header."""


def surround(
    pcm: Float[np.ndarray, "clips samples"], vocoder: Vocoder, extractor: FeatureExtractor = EXTRACTOR
) -> Float[np.ndarray, "clips rows 20"]:
    """Feature rows of clips in silence: ``prime_rows`` before, the one at the end and the look ahead behind.

    Clips that are not a multiple of 10 ms are filled up.
    """
    behind = FRAME_SAMPLES * (1 + vocoder.lookahead_rows) + -pcm.shape[-1] % FRAME_SAMPLES
    padded = np.pad(np.asarray(pcm, np.float32), ((0, 0), (FRAME_SAMPLES * vocoder.prime_rows, behind)))
    return np.asarray(_extract(padded, extractor))


@jax.jit
def speak(vocoder: Vocoder, rows: Float[Array, "clips rows 20"], seed: int = 0) -> Float[Array, "clips samples"]:
    """Whole clips from the rows of ``surround``; every clip by itself, whatever the others are."""
    key = jax.random.key(seed)

    def uniforms(number: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, number), (FRAME_SAMPLES, 8))

    def one(rows: Array) -> Array:
        first = vocoder.prime_rows + vocoder.lookahead_rows + 1
        silence = jnp.zeros(FRAME_SAMPLES * vocoder.prime_rows + FRAME_SAMPLES // 2)
        state, head = vocoder.prime(rows[:first], silence, uniforms(0))

        def body(state, x):
            number, row = x
            return vocoder.step(state, VocoderInput(row, uniforms(number)))

        _, said = jax.lax.scan(body, state, (1 + jnp.arange(len(rows) - first), rows[first:]))
        # Half a frame is said of the first row and too much of the last one.
        return jnp.concatenate([head, said.reshape(-1)])[: -FRAME_SAMPLES // 2]

    return jax.vmap(one)(rows)


def through(
    rdovae: RDOVAE,
    tables: CodingTables,
    pcm: Float[np.ndarray, "samples"],
    level: int,
    extractor: FeatureExtractor = EXTRACTOR,
    slope: int = 0,
) -> Through:
    """A clip's feature rows decoded from latents at a constant level, or at levels that rise with age.

    The clip is cut into windows of 26 chunks (1.04 s) back to back from its end; what is left at its beginning keeps
    the true rows.

    Args:
      level: of the newest chunk of each window and of its state, 0 .. 15.
      slope: index into ``payload.SLOPES``.
    """
    latents = len(pcm) // (PACKET_FRAMES * FRAME_SAMPLES)
    rows = np.array(_extract(np.asarray(pcm, np.float32), extractor))
    newest = np.arange(latents - 1, HISTORY_LATENTS - 2, -HISTORY_LATENTS)
    windows = rd.cut(rdovae, pcm, newest, extractor)
    if windows is None:
        return Through(rows, 0.0)
    coded = rd.code(rdovae, tables, windows, level, slope)
    rows[PACKET_FRAMES * newest[:, None] + 1 - np.arange(CHUNK_FRAMES * MAX_CHUNKS)] = coded.rows
    bits = coded.state_bits.mean() + coded.chunk_bits.sum(axis=-1).mean()
    return Through(rows, float(bits) / WINDOW_SECONDS)


def fidelity(
    said: Float[np.ndarray, "samples"], given: Float[np.ndarray, "frames 20"], true: Float[np.ndarray, "frames 20"]
) -> dict[str, float]:
    """How pitch, voicing and energy of the features of what was said agree with those it was said from.

    Args:
      said: its features are those of the default extractor, so ``true`` should be, too.
      given: the rows that the vocoder was given; its energy is judged by them.
      true: the rows of the original; pitch and voicing are judged by them.
    Returns:
      ``f0_cents``: median error where both are voiced; ``f0_gross``: share of those above ``GROSS_CENTS``;
      ``voicing_error``: share of active rows voiced in one only; ``energy_within_3db``, ``energy_bias_db``,
      ``energy_error_db``: share, mean and mean absolute difference of active rows' energy, 10 ms each.
    """
    found = np.asarray(_extract(np.asarray(said, np.float32)))[: len(true)]
    active = row_energy_db(true) >= row_energy_db(true).max() - metrics.ACTIVE_DB
    voiced, voiced_too = active & (true[:, 19] > rd.VOICED_CORRELATION), active & (found[:, 19] > rd.VOICED_CORRELATION)
    cents = rd.CENTS_PER_OCTAVE * np.abs(found[:, 18] - true[:, 18])[voiced & voiced_too]
    difference = (row_energy_db(found) - row_energy_db(given))[active]
    return {
        "f0_cents": float(np.median(cents)) if len(cents) else np.nan,
        "f0_gross": float(np.mean(cents > GROSS_CENTS)) if len(cents) else np.nan,
        "voicing_error": float(np.mean((voiced != voiced_too)[active])),
        "energy_within_3db": float(np.mean(np.abs(difference) <= WITHIN_DB)),
        "energy_bias_db": float(difference.mean()),
        "energy_error_db": float(np.abs(difference).mean()),
    }


def row_energy_db(rows: Float[np.ndarray, "frames 20"]) -> Float[np.ndarray, "frames"]:
    """Energy of feature rows in dB: all bands together, pre-emphasised as they are."""
    logs = np.asarray(log_energies_from_cepstrum(jnp.asarray(rows[..., :NUM_BANDS])), np.float64)
    return 10 * np.log10(np.sum(10.0**logs, axis=-1))
