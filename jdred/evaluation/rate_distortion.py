"""What an RDO-VAE costs and how well it describes speech: bits of the real range coder against errors of the features.

Every clip is cut into windows of 26 chunks (1.04 s) that end at latents 62, 75, 88, ..., each coded as one payload.
The same definitions serve the figures of other codecs that ours are compared with.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdred.bitstream.payload import Distributions, Header, distributions, level_schedule, payload_bits
from jdred.config import (
    CHUNK_FRAMES,
    CHUNK_PACKETS,
    FRAME_SAMPLES,
    MAX_CHUNKS,
    NUM_BANDS,
    NUM_LEVELS,
    PACKET_FRAMES,
    PACKETS_PER_SECOND,
    SAMPLE_RATE_HZ,
)
from jdred.dsp.bands import log_energies_from_cepstrum
from jdred.dsp.features import EXTRACTOR, FeatureExtractor, extract
from jdred.rdovae import RDOVAE, DecoderInput
from jdred.rdovae.tables import CodingTables
from jdred.rdovae.tables import coded as may_be_nonzero

FIRST_NEWEST, NEWEST_STEP = 62, 13
"""Latent at which the first window of a clip ends, and latents from one window to the next."""
ACTIVE_DB = 50.0
"""A row is active when its loudest band lies less than this below the loudest of all rows."""
VOICED_CORRELATION = 0.3
"""An active row whose correlation feature is above this has a pitch worth comparing."""
CENTS_PER_OCTAVE = 1200
CHUNKS_PER_SECOND = PACKETS_PER_SECOND // CHUNK_PACKETS
_PAD_SAMPLES = 2 * SAMPLE_RATE_HZ
"""Clips are padded to a multiple of this, so that few lengths are compiled."""


class Windows(NamedTuple):
    """Windows of all clips before quantisation; chunks and rows newest first."""

    latents: Float[np.ndarray, "windows 26 latent"]
    state: Float[np.ndarray, "windows state"]
    rows: Float[np.ndarray, "windows 104 20"]


class Coded(NamedTuple):
    """Windows after the coder."""

    state_bits: Float[np.ndarray, "windows"]
    chunk_bits: Float[np.ndarray, "windows 26"]
    rows: Float[np.ndarray, "windows 104 20"]


class Curve(NamedTuple):
    """Points of a codec, in any order."""

    bits: Float[np.ndarray, "points"]
    rmse: Float[np.ndarray, "points"]


@jax.jit
def _encode(rdovae: RDOVAE, pcm: Float[Array, "samples"], extractor: FeatureExtractor):
    rows = extract(pcm, extractor)
    _, encoded = rdovae.encoder.scan(rdovae.encoder.init_state(), rows.reshape(-1, PACKET_FRAMES * rows.shape[-1]))
    return rows, encoded


def cut(
    rdovae: RDOVAE,
    pcm: Float[np.ndarray, "samples"],
    newest: Int[np.ndarray, "windows"] | None = None,
    extractor: FeatureExtractor = EXTRACTOR,
) -> Windows | None:
    """Windows of one clip in [-1, 1]; None where it is too short to hold one.

    Args:
      newest: latents at which windows end, each at least 51; by default 62, 75, 88, ... to the clip's end.
    """
    if newest is None:
        newest = np.arange(FIRST_NEWEST, len(pcm) // (PACKET_FRAMES * FRAME_SAMPLES), NEWEST_STEP)
    if not len(newest):
        return None
    padded = np.pad(np.asarray(pcm, np.float32), (0, -len(pcm) % _PAD_SAMPLES))
    rows, encoded = jax.tree.map(np.asarray, _encode(rdovae, padded, extractor))
    # Latent t describes the frames 2 t - 2 .. 2 t + 1.
    newest_row = PACKET_FRAMES * newest + 1
    return Windows(
        latents=encoded.latent[newest[:, None] - CHUNK_PACKETS * np.arange(MAX_CHUNKS)],
        state=encoded.state[newest],
        rows=rows[newest_row[:, None] - np.arange(CHUNK_FRAMES * MAX_CHUNKS)],
    )


def cut_all(
    rdovae: RDOVAE, clips: list[Float[np.ndarray, "samples"]], extractor: FeatureExtractor = EXTRACTOR
) -> Windows:
    """The windows of all clips, in one.

    Raises:
      ValueError: no clip is long enough.
    """
    found = [windows for clip in clips if (windows := cut(rdovae, clip, extractor=extractor)) is not None]
    if not found:
        shortest = (FIRST_NEWEST + 1) / PACKETS_PER_SECOND
        raise ValueError(f"expected a clip of at least {shortest} s, found {len(clips)} shorter ones")
    return Windows(*map(np.concatenate, zip(*found, strict=True)))


@partial(jax.jit, static_argnames="quantised")
def _decode(rdovae: RDOVAE, latents: Array, state: Array, levels: Array, quantised: bool) -> Array:
    """Rows of windows, from symbols or (not ``quantised``) from raw latents."""
    if quantised:
        return jax.vmap(rdovae.reconstruct, in_axes=(0, 0, None))(latents, state, levels)

    def raw(latents: Array, state: Array) -> Array:
        _, rows = rdovae.decoder.scan(rdovae.decoder.start(state), DecoderInput(latents, levels))
        return rows.reshape(-1, rows.shape[-1])

    return jax.vmap(raw)(latents, state)


@jax.jit
def _quantise(rdovae: RDOVAE, latents: Array, state: Array, levels: Array) -> tuple[Array, Array]:
    return jax.vmap(rdovae.quantize, in_axes=(0, 0, None))(latents, state, levels)


@jax.jit
def _bits(tables: Distributions, header: Header, latents: Array, state: Array) -> Float[Array, "windows 28"]:
    return jax.vmap(payload_bits, in_axes=(None, None, 0, 0))(tables, header, state, latents)


def code(rdovae: RDOVAE, tables: CodingTables, windows: Windows, level: int, slope: int = 0) -> Coded:
    """Send windows through quantiser, range coder and decoder.

    Args:
      level: of the newest chunk and of the state, 0 .. 15.
      slope: index into ``payload.SLOPES``; 0 keeps the level for all chunks.
    """
    fields = (level, slope, NUM_LEVELS - 1, 0)
    header = Header(*(jnp.asarray(field, jnp.int32) for field in fields))
    levels = level_schedule(*header[:3])
    latents, state = _quantise(rdovae, windows.latents, windows.state, levels)
    # The coder passes over what is never coded; the decoder sees a zero there.
    latents = jnp.where(may_be_nonzero(tables.latent_p0, tables.latent_r)[np.asarray(levels)], latents, 0)
    state = jnp.where(may_be_nonzero(tables.state_p0, tables.state_r)[level], state, 0)
    marks = np.asarray(_bits(distributions(tables), header, latents, state))
    rows = np.asarray(_decode(rdovae, latents, state, levels, True))
    # The first mark is behind the header, the second behind the state.
    bits = np.diff(marks, axis=-1)
    return Coded(bits[:, 0], bits[:, 1:], rows)


def unquantised(rdovae: RDOVAE, windows: Windows) -> Coded:
    """What the decoder makes of the raw latents, told level 0: the floor of the distortion; no bits."""
    levels = jnp.zeros(MAX_CHUNKS, jnp.int32)
    rows = np.asarray(_decode(rdovae, windows.latents, windows.state, levels, False))
    return Coded(np.zeros(len(rows)), np.zeros((len(rows), MAX_CHUNKS)), rows)


def active_rows(true: Float[np.ndarray, "... 20"]) -> Bool[np.ndarray, "..."]:
    """Rows whose loudest band is within ``ACTIVE_DB`` of the loudest of all."""
    loudest = np.asarray(log_energies_from_cepstrum(jnp.asarray(true[..., :NUM_BANDS]))).max(axis=-1)
    return loudest > loudest.max() - ACTIVE_DB / 10


def distortion(decoded: Float[np.ndarray, "... 20"], true: Float[np.ndarray, "... 20"]) -> dict[str, float]:
    """Errors of feature rows: cepstral RMSE, pitch in cents, correlation.

    The cepstrum is an orthonormal transform of log10 band energies, so ten times its RMSE is in dB per band. Pitch is
    compared on voiced rows, correlation on active ones; NaN where there is none.
    """
    error = np.asarray(decoded, np.float64) - true
    active = active_rows(true)
    voiced = active & (true[..., 19] > VOICED_CORRELATION)
    cents = CENTS_PER_OCTAVE * np.abs(error[..., 18][voiced])
    cents = cents if len(cents) else np.array([np.nan])
    of_active = _rms(error[..., :NUM_BANDS][active])
    return {
        "ceps_rmse": _rms(error[..., :NUM_BANDS]),
        "ceps_rmse_active": of_active,
        "logband_rms_db_active": 10 * of_active,
        "c0_rmse": _rms(error[..., 0]),
        "pitch_cents_median": float(np.median(cents)),
        "pitch_cents_mean": float(cents.mean()),
        "pitch_cents_p90": float(np.percentile(cents, 90)),
        "pitch_gross_50c": float(np.mean(cents > 50)),
        "pitch_gross_200c": float(np.mean(cents > 200)),
        "corr_rmse": _rms(error[..., 19][active]),
        "corr_mae": float(np.abs(error[..., 19][active]).mean()),
        "frac_active": float(active.mean()),
        "frac_voiced": float(voiced.mean()),
    }


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def rate(coded: Coded) -> dict[str, float]:
    """Bits of a latent and of the state, and what a payload of 26 chunks costs in every packet or once a second."""
    per_latent, state = float(coded.chunk_bits.mean()), float(coded.state_bits.mean())
    payload = state + MAX_CHUNKS * per_latent
    return {
        "bits_per_40ms_latent": per_latent,
        "bits_latent_std": float(coded.chunk_bits.std()),
        "bps_latents": CHUNKS_PER_SECOND * per_latent,
        "bits_initial_state": state,
        "bps_1s_copy_stream": payload * CHUNKS_PER_SECOND / MAX_CHUNKS,
        "mean_payload_bits": payload,
        "kbps_at_50pps": payload * PACKETS_PER_SECOND / 1000,
        "n_windows": len(coded.rows),
    }


def measure(windows: Windows, coded: Coded) -> dict[str, float]:
    """Rate and distortion over all chunks."""
    return rate(coded) | distortion(coded.rows, windows.rows)


def measure_by_age(windows: Windows, coded: Coded) -> list[dict[str, float]]:
    """Bits and distortion of each chunk, the newest first."""
    figures = []
    for chunk in range(MAX_CHUNKS):
        rows = slice(CHUNK_FRAMES * chunk, CHUNK_FRAMES * (chunk + 1))
        age = {
            "chunk": chunk,
            "age_ms": 1000 // CHUNKS_PER_SECOND * chunk,
            "bits": float(coded.chunk_bits[:, chunk].mean()),
        }
        figures.append(age | distortion(coded.rows[:, rows], windows.rows[:, rows]))
    return figures


def frontier(curve: Curve) -> Curve:
    """What a codec reaches: its points that none of fewer bits beats, in order of rising error."""
    order = np.argsort(curve.bits, kind="stable")
    bits, rmse = np.asarray(curve.bits)[order], np.asarray(curve.rmse)[order]
    best = np.concatenate([[np.inf], np.minimum.accumulate(rmse)[:-1]])
    return Curve(bits[rmse < best][::-1], rmse[rmse < best][::-1])


def bd_rate(curve: Curve, reference: Curve) -> float:
    """Mean difference of the logarithm of the bits at equal error, in percent (after G. Bjøntegaard, VCEG-M33).

    The curves are straight between their points in the logarithm of the bits; the mean is over the errors that both
    reach. Negative: fewer bits than the reference.

    Raises:
      ValueError: there is no error that both reach.
    """
    curve, reference = frontier(curve), frontier(reference)
    low, high = max(curve.rmse[0], reference.rmse[0]), min(curve.rmse[-1], reference.rmse[-1])
    if not low < high:
        ranges = " and ".join(f"{c.rmse[0]:.4g} .. {c.rmse[-1]:.4g}" for c in (curve, reference))
        raise ValueError(f"expected curves that overlap in their error, found {ranges}")
    at = np.unique([low, high, *curve.rmse, *reference.rmse])
    at = at[(at >= low) & (at <= high)]
    ours, theirs = (np.interp(at, c.rmse, np.log(c.bits)) for c in (curve, reference))
    return float(100 * np.expm1(np.trapezoid(ours - theirs, at) / (high - low)))
