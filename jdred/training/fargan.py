"""Training FARGAN through its own output: spectra of what it says freely against those of the speech it continues."""

from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jdred.config import FRAME_SAMPLES, FARGANConfig
from jdred.dsp import INT16_SCALE
from jdred.dsp.filters import overlap, preemphasize
from jdred.models import load_vocoder
from jdred.training import Task
from jdred.training.corpus import Prepared
from jdred.training.optimizers import clipped
from jdred.training.schedule import steady
from jdred.vocoder.fargan import FARGAN, FORCED_SUBFRAMES, MEMORY_SAMPLES, SUBFRAME_SAMPLES

PAST_SAMPLES = FRAME_SAMPLES // 2
"""Row k speaks [160 k - 80, 160 k + 80), so a sequence begins half a frame before its first row."""
FORCED_SAMPLES = FORCED_SUBFRAMES * SUBFRAME_SAMPLES
TRUE_SAMPLES = MEMORY_SAMPLES + FORCED_SAMPLES
"""What ``speak`` gives begins with so many that are true in both."""
FIRST_SAMPLE = (FARGAN.prime_rows - 1) * FRAME_SAMPLES - MEMORY_SAMPLES
"""Of a sequence's PCM the sample that ``speak`` begins with."""
WINDOWS = (2560, 1280, 640, 320, 160, 80)


@dataclass(frozen=True)
class SpeakingSettings:
    """Of every task in which a FARGAN speaks freely."""

    model: FARGANConfig = FARGANConfig()
    batch: int = 32
    rows: int = 16
    """Rows (10 ms) spoken in a training sequence, the one and a half that are forced included."""
    learning_rate: float = 1.5e-3
    warmup_steps: int = 200
    decay: float = 2e-5
    """See ``schedule.steady``."""
    weight_decay: float = 0.01
    muon: bool = False
    """Steps of ``optimizers.clipped``."""
    quiet_floor: float = 0.1
    """Sequences count by their relative error; those quieter than so much of the mean of the batch count less."""
    validation_batches: int = 8
    validation_rows: int = 60


@dataclass(frozen=True)
class FARGANSettings(SpeakingSettings):
    continuity: float = 0.03
    """Weight of the phase match of the first 10 ms that are spoken freely."""


@dataclass(frozen=True)
class FARGANTask(Task):
    """``jdred.training.Task`` of FARGAN."""

    train: Prepared
    validation: Prepared
    settings: FARGANSettings = field(default_factory=FARGANSettings)
    name: str = "fargan"

    def init(self, seed: int) -> FARGAN:
        return FARGAN(self.settings.model, rngs=nnx.Rngs(seed))

    def config(self) -> dict[str, Any]:
        return {
            "kind": "fargan",
            "task": self.name,
            "model": asdict(self.settings.model),
            "settings": asdict(self.settings),
        }

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        settings = self.settings
        rate = steady(settings.learning_rate, settings.warmup_steps, settings.decay, total_steps)
        # To Muon the table of pitch embeddings is a matrix as well; nothing else was tried.
        return clipped(rate, clip=1.0, b1=0.8, b2=0.95, muon=settings.muon, weight_decay=settings.weight_decay)

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self._draw(self.train, rng, self.settings.rows)

    def loss(self, parameters: FARGAN, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        figures = errors(parameters, batch, self.settings.quiet_floor)
        return figures["spectral"] + self.settings.continuity * figures["mismatch"], figures

    def validate(self, parameters: FARGAN) -> dict[str, float]:
        figures = self.heard(parameters)
        return {"loss": figures["spectral"] + self.settings.continuity * figures["mismatch"], **figures}

    def heard(self, parameters: FARGAN) -> dict[str, float]:
        """``errors`` of free speech of ``validation_rows`` on the validation split."""
        rng, settings = np.random.default_rng(1), self.settings
        batches = [
            self._draw(self.validation, rng, settings.validation_rows) for _ in range(settings.validation_batches)
        ]
        figures = [_compiled_errors(parameters, batch, settings.quiet_floor) for batch in batches]
        return jax.tree.map(lambda *values: float(np.mean(values)), *figures)

    def _draw(self, corpus: Prepared, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        frames = FARGAN.prime_rows + rows
        return corpus.speech(rng, self.settings.batch, frames, PAST_SAMPLES)


def samples_of(frames: int) -> int:
    """PCM samples of a sequence of so many feature rows, those before its first row included."""
    return PAST_SAMPLES + frames * FRAME_SAMPLES


def load_fargan(name: str) -> FARGAN:
    """A trained FARGAN that takes part in a task, by shipped name or path; it may first be asked for inside a trace.

    Raises:
      CheckpointError: no such weights.
      ValueError: not a FARGAN.
    """
    with jax.ensure_compile_time_eval():
        vocoder = load_vocoder(name)
    if not isinstance(vocoder, FARGAN):
        raise ValueError(f"expected a FARGAN, found {type(vocoder).__name__} in {name}")
    return vocoder


def errors(model: FARGAN, batch: dict[str, Array], quiet_floor: float) -> dict[str, Float[Array, ""]]:
    """``spectral``: of what is said, see ``spectral_errors``; ``mismatch``: of the wave of the first free frame."""
    truth, said = speak(model, batch)
    spectral = spectral_error(truth, said, quiet_floor)
    first = slice(TRUE_SAMPLES, TRUE_SAMPLES + FRAME_SAMPLES)
    mismatch = jnp.mean(1 - cosine(truth[:, first], said[:, first]))
    return {"spectral": spectral, "mismatch": mismatch}


_compiled_errors = jax.jit(errors, static_argnums=2)


def speak(
    model: FARGAN, batch: dict[str, Array]
) -> tuple[Float[Array, "batch samples"], Float[Array, "batch samples"]]:
    """Pre-emphasised speech from 256 samples before the first spoken row on: the truth and what the model says.

    The model begins as ``FARGAN.prime`` does, ``prime_rows`` rows into the sequence.
    """
    truth, state, condition, periods = beginning(model, batch)
    _, said = model.speak(state, condition, periods, truth[:, :FORCED_SAMPLES])
    return tuple(jnp.concatenate([state.memory, x], axis=-1) for x in (truth, said))


def beginning(model: FARGAN, batch: dict[str, Array]):
    """What ``FARGAN.speak`` needs of a batch.

    Returns:
      the true pre-emphasised samples from row ``prime_rows - 1`` on, the state before them, conditioning and periods.
    """
    features = jnp.swapaxes(batch["features"], 0, 1)
    signal, _ = preemphasize(jnp.asarray(batch["pcm"], jnp.float32) / INT16_SCALE)
    rows = len(features) - FARGAN.prime_rows
    begin = (FARGAN.prime_rows - 1) * FRAME_SAMPLES  # of row prime_rows - 1; the signal begins with row 0
    truth = signal[:, begin : begin + rows * FRAME_SAMPLES]
    _, condition, periods = model.read(features)
    shift = FARGAN.prime_rows  # the conditioning of row k comes with row k + lookahead_rows
    return truth, model.remember(signal[:, :begin]), condition[shift:], periods[shift - 1 : -1]


def spectral_error(
    truth: Float[Array, "batch samples"], said: Float[Array, "batch samples"], floor: float, noise: float = 0.0
) -> Float[Array, ""]:
    """``spectral_errors``, mean over the batch."""
    return jnp.mean(spectral_errors(truth, said, floor, noise))


def spectral_errors(
    truth: Float[Array, "batch samples"], said: Float[Array, "batch samples"], floor: float, noise: float = 0.0
) -> Float[Array, "batch"]:
    """Relative error of square-rooted magnitudes, mean over six resolutions.

    Args:
      floor: the reference of a sequence is its own sum plus so much of the mean of the batch.
      noise: see ``roots``.
    """

    def one(window: int):
        true, own = roots(truth, window, noise), roots(said, window, noise)
        error, reference = jnp.abs(true - own).sum((-2, -1)), true.sum((-2, -1))
        return error / (reference + floor * reference.mean())

    return (1 + floor) * sum(one(window) for window in WINDOWS) / len(WINDOWS)


def roots(signal: Float[Array, "... samples"], window: int, noise: float = 0.0) -> Float[Array, "... frames bins"]:
    """Square roots of the magnitudes of Hann-windowed spectra, a quarter of a window apart.

    Args:
      noise: standard deviation of white noise whose mean power is added.
    """
    hop = window // 4
    edge = window // 2
    padded = jnp.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(edge, edge)], mode="reflect")
    count = padded.shape[-1] // hop
    blocks = padded[..., : count * hop].reshape(*signal.shape[:-1], count, hop)
    hann = np.hanning(window + 1)[:-1]
    spectra = jnp.fft.rfft(overlap(blocks, 4) * jnp.asarray(hann, jnp.float32))
    power = spectra.real**2 + spectra.imag**2 + np.sum(hann**2) * noise**2
    return jnp.maximum(power, 1e-14) ** 0.25


def cosine(a: Float[Array, "... samples"], b: Float[Array, "... samples"]) -> Float[Array, "..."]:
    """Cosine similarity."""
    energies = (a * a).sum(-1) * (b * b).sum(-1)
    return (a * b).sum(-1) * jax.lax.rsqrt(energies + 1e-14)
