"""Training the RDO-VAE through a vocoder: rate against what is heard, not only against features.

Beside the distortion of the features stands the spectral error of speech that a frozen FARGAN speaks from them. The
gradient runs from the spectra through the vocoder, the decoder and the quantiser (straight-through) to the encoder.
"""

from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdred.config import CHUNK_FRAMES, FRAME_SAMPLES
from jdred.rdovae import RDOVAE
from jdred.rdovae.loss import Runs, code, weigh
from jdred.rdovae.rate import level_lambda
from jdred.training.corpus import Prepared
from jdred.training.fargan import PAST_SAMPLES, load_fargan, samples_of, speak, spectral_errors
from jdred.training.rdovae import RUNS_PER_PHASE, RDOVAESettings, RDOVAETask, time_first
from jdred.vocoder.fargan import FARGAN


@dataclass(frozen=True)
class JointSettings(RDOVAESettings):
    vocoder: str = "fargan"
    """Weights of the FARGAN that speaks: a shipped name or a path. They stay as they are."""
    voice_weight: float = 0.2
    """Of the spectral error; scaled by the level's ``1 / sqrt(lambda)`` as the distortion is. 0 for comparison."""
    rows: int = 16
    """Rows (10 ms) of each sequence that are spoken, somewhere in it."""
    quiet_floor: float = 0.1
    """See ``SpeakingSettings``."""


@dataclass(frozen=True)
class JointTask(RDOVAETask):
    """``jdred.training.Task`` of an RDO-VAE that is heard."""

    settings: JointSettings = field(default_factory=JointSettings)

    @cached_property
    def vocoder(self) -> FARGAN:
        """The one that speaks."""
        return load_fargan(self.settings.vocoder)

    def config(self) -> dict:
        return {**super().config(), "task": "joint"}

    def draw(self, corpus: Prepared, rng: np.random.Generator, sequences: int) -> dict[str, np.ndarray]:
        return corpus.speech(rng, sequences, self.settings.frames, PAST_SAMPLES)

    def loss(self, parameters: RDOVAE, batch: dict[str, Array], key: Array, step: Array):
        settings = self.settings
        features, runs = time_first(batch)
        key, key_window = jax.random.split(key)
        coded = code(parameters, features, runs, key)
        total, figures = weigh(coded, features, runs, step, settings.loss, RUNS_PER_PHASE)
        rows = rows_of(coded.decoded[:, 0, 0])
        span = settings.rows + FARGAN.prime_rows
        start = jax.random.randint(key_window, (), settings.frames - rows.shape[1], settings.frames - span + 1)
        errors = spectral_errors(*speak(self.vocoder, window(batch, rows, start, span)), settings.quiet_floor)
        level = level_at(runs, settings.frames, start + span // 2)
        root = jnp.sqrt(level_lambda(level, settings.loss.lambda_min, settings.loss.lambda_max))
        return total + settings.voice_weight * jnp.mean(errors / root), {**figures, "voice": jnp.mean(errors)}


def rows_of(decoded: Float[Array, "chunks batch 4 20"]) -> Float[Array, "batch rows 20"]:
    """Decoded chunks, newest first, as rows in the order of time."""
    rows = jnp.moveaxis(decoded[::-1, :, ::-1], 1, 0)
    return rows.reshape(rows.shape[0], -1, rows.shape[-1])


def window(
    batch: dict[str, Array], rows: Float[Array, "batch rows 20"], start: Int[Array, ""], span: int
) -> dict[str, Array]:
    """``span`` frames of a batch from frame ``start`` on, as FARGAN is trained on them.

    The rows that prime the vocoder are the true ones, as in a call; those that follow are the given ones.

    Args:
      rows: of the last frames of the batch, which the window lies in.
    """
    features = batch["features"]
    true = jax.lax.dynamic_slice_in_dim(features, start, FARGAN.prime_rows, axis=1)
    first = start - (features.shape[1] - rows.shape[1])
    told = jax.lax.dynamic_slice_in_dim(rows, first, span, axis=1)[:, FARGAN.prime_rows :]
    pcm = jax.lax.dynamic_slice_in_dim(batch["pcm"], start * FRAME_SAMPLES, samples_of(span), axis=1)
    return {"features": jnp.concatenate([true, told], axis=1), "pcm": pcm}


def level_at(runs: Runs, frames: int, frame: Int[Array, ""]) -> Int[Array, "batch"]:
    """Level of the chunk of phase 0 that holds a frame."""
    return runs.level[(frames - 1 - frame) // CHUNK_FRAMES, 0]
