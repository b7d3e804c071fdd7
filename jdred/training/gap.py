"""Training the predictor through the vocoder: how a repaired gap sounds, not only how near its features are.

The end of every sequence is lost, a frozen FARGAN goes on from the last real sample with what was predicted, and for
some packets that is played in place of the true sound; then what follows is true again. Beside the errors of the
features stands the spectral error of all this. The gradient runs from the spectra through the vocoder to the predictor.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jdred.config import FRAME_SAMPLES, PACKET_SAMPLES
from jdred.plc.concealer import attenuate
from jdred.plc.predictor import Predictor
from jdred.training.corpus import Prepared
from jdred.training.fargan import (
    FORCED_SAMPLES,
    PAST_SAMPLES,
    TRUE_SAMPLES,
    load_fargan,
    samples_of,
    speak,
    spectral_error,
)
from jdred.training.plc import PLCSettings, PLCTask, predict, prediction_loss
from jdred.vocoder.fargan import FARGAN


@dataclass(frozen=True)
class GapSettings(PLCSettings):
    vocoder: str = "fargan"
    """Weights of the FARGAN that speaks: a shipped name or a path. They stay as they are."""
    voice_weight: float = 10.0
    """Of the spectral error. 0 for comparison."""
    batch: int = 32
    frames: int = 200
    learning_rate: float = 3e-4
    rows: int = 16
    """Rows (10 ms) at the end of each sequence that are lost."""
    packets: int = 5
    """Longest gap that is heard, in packets of 20 ms; all lengths come as often."""
    quiet_floor: float = 0.1
    """See ``SpeakingSettings``."""

    def __post_init__(self):
        """Raises ``ValueError`` where the gap or the rows do not fit."""
        longest = (self.rows * FRAME_SAMPLES - FORCED_SAMPLES) // PACKET_SAMPLES
        if not 1 <= self.packets <= longest:
            raise ValueError(f"expected gaps of 1 .. {longest} packets in {self.rows} rows, found {self.packets}")
        if self.frames < self.rows + FARGAN.prime_rows:
            raise ValueError(f"expected at least {self.rows + FARGAN.prime_rows} frames, found {self.frames}")


@dataclass(frozen=True)
class GapTask(PLCTask):
    """``jdred.training.Task`` of a predictor that is heard."""

    settings: GapSettings = field(default_factory=GapSettings)

    @cached_property
    def vocoder(self) -> FARGAN:
        """The one that speaks."""
        return load_fargan(self.settings.vocoder)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "task": "gap"}

    def loss(self, parameters: Predictor, batch: dict[str, Array], key: Array, step: Array):
        return _compiled_objective(self.settings, self.vocoder, parameters, batch)

    def validate(self, parameters: Predictor) -> dict[str, float]:
        """``loss`` and its parts: ``feature_loss``, by the formula of ``PLCTask`` (its losses are others, and not to be
        compared), and ``voice``, the spectral error.
        """
        batch = self._draw(self.validation, np.random.default_rng(1), self.settings.validation_sequences)
        loss, figures = _compiled_objective(self.settings, self.vocoder, parameters, batch)
        return {"loss": float(loss), **{name: float(value) for name, value in figures.items()}}

    def _lost(self, rng: np.random.Generator, sequences: int) -> Bool[np.ndarray, "sequences frames"]:
        """As ever, but for a gap at the end after rows enough to prime the vocoder on."""
        lost = super()._lost(rng, sequences)
        lost[:, -self.settings.rows :] = True
        lost[:, -self.settings.rows - FARGAN.prime_rows : -self.settings.rows] = False
        return lost

    def _crops(self, corpus: Prepared, rng: np.random.Generator, sequences: int) -> dict[str, np.ndarray]:
        crops = corpus.crops(rng, sequences, self.settings.frames, past=PAST_SAMPLES)
        samples = samples_of(FARGAN.prime_rows + self.settings.rows)
        gap = rng.integers(1, self.settings.packets + 1, size=sequences)
        return {"features": crops["features"], "burg": crops["burg"], "pcm": crops["pcm"][:, -samples:], "gap": gap}


def objective(settings: GapSettings, vocoder: FARGAN, predictor: Predictor, batch: dict[str, Array]):
    """Loss of a batch, and figures: ``feature_loss`` and ``voice``.

    Args:
      batch: as ``PLCTask`` draws it, with ``pcm`` of the end that is spoken and ``gap``, the packets of it to be heard.
    """
    predicted = predict(predictor, batch)
    loss, _ = prediction_loss(predicted, batch["features"], batch["weight"], settings.voiced_bias)
    truth, played = repair(vocoder, predicted[:, -settings.rows :], batch)
    voice = spectral_error(truth, played, settings.quiet_floor)
    return loss + settings.voice_weight * voice, {"feature_loss": loss, "voice": voice}


_compiled_objective = jax.jit(objective, static_argnums=0)


def repair(
    vocoder: FARGAN, predicted: Float[Array, "batch rows 20"], batch: dict[str, Array]
) -> tuple[Float[Array, "batch samples"], Float[Array, "batch samples"]]:
    """The true end of a batch and that with its first ``batch["gap"]`` lost packets spoken; pre-emphasised.

    Args:
      predicted: rows of the lost frames, to be attenuated as the concealer does; its fade of 5 ms where sound resumes
        is left out.
    """
    rows = predicted.shape[1]
    spoken = attenuate(predicted, 1 + jnp.arange(rows), vocoder.floor)
    primed = batch["features"][:, -rows - FARGAN.prime_rows : -rows]
    truth, said = speak(vocoder, {"features": jnp.concatenate([primed, spoken], axis=1), "pcm": batch["pcm"]})
    since = jnp.arange(truth.shape[1]) - TRUE_SAMPLES
    return truth, jnp.where(since < PACKET_SAMPLES * batch["gap"][:, None], said, truth)
