"""Training the RDO-VAE: four-second sequences, random payload-like cuts, constant and rising levels."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from jdred.bitstream.payload import SLOPES
from jdred.config import NUM_LEVELS, PACKET_FRAMES, RDOVAEConfig
from jdred.rdovae import RDOVAE
from jdred.rdovae.encoder import Encoded
from jdred.rdovae.loss import RDOVAELossConfig, Runs, num_chunks, rate_distortion
from jdred.streaming import batch_state
from jdred.training import Task
from jdred.training.corpus import Prepared
from jdred.training.optimizers import clipped
from jdred.training.schedule import steady

RUNS_PER_PHASE = 4
QUANTIZERS = ("raw",)
"""Parameters that are no matrices."""


@dataclass(frozen=True)
class RDOVAESettings:
    model: RDOVAEConfig = RDOVAEConfig()
    loss: RDOVAELossConfig = RDOVAELossConfig()
    batch: int = 16
    frames: int = 400
    """Length of a training sequence in 10 ms frames, even."""
    learning_rate: float = 3e-3
    decay: float = 1e-4
    """See ``schedule.steady``."""
    warmup_steps: int = 100
    muon: bool = False
    """Steps of ``optimizers.clipped``."""
    constant_levels: float = 0.5
    """Share of sequences with one level throughout; the others rise with age as real payloads do."""
    validation_sequences: int = 32
    validation_levels: tuple[int, ...] = (0, 3, 6, 9, 12, 15)


@dataclass(frozen=True)
class RDOVAETask(Task):
    """``jdred.training.Task`` of the RDO-VAE."""

    train: Prepared
    validation: Prepared
    settings: RDOVAESettings = field(default_factory=RDOVAESettings)
    name: str = "rdovae"

    def init(self, seed: int) -> RDOVAE:
        return RDOVAE(self.settings.model, rngs=nnx.Rngs(seed))

    def config(self) -> dict[str, Any]:
        return {"kind": self.name, "model": asdict(self.settings.model), "settings": asdict(self.settings)}

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        settings = self.settings
        rate = steady(settings.learning_rate, settings.warmup_steps, settings.decay, total_steps)
        return clipped(rate, clip=5.0, b1=0.8, b2=0.95, muon=settings.muon, tables=QUANTIZERS)

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        settings = self.settings
        speech = self.draw(self.train, rng, settings.batch)
        newest = random_cuts(rng, settings.batch, num_chunks(settings.frames))
        first = rng.integers(NUM_LEVELS, size=newest.shape[:2] + (1,))
        slope = np.asarray(SLOPES)[rng.integers(len(SLOPES), size=first.shape)]
        slope = np.where(rng.random((settings.batch, 1, 1)) < settings.constant_levels, 0, slope)
        return {**speech, "newest": newest, "level": rising_levels(newest, first, slope)}

    def draw(self, corpus: Prepared, rng: np.random.Generator, sequences: int) -> dict[str, np.ndarray]:
        """The speech of a batch."""
        return {"features": corpus.crops(rng, sequences, self.settings.frames)["features"]}

    def loss(self, parameters: RDOVAE, batch: dict[str, Array], key: Array, step: Array):
        return rate_distortion(parameters, *time_first(batch), key, step, self.settings.loss, RUNS_PER_PHASE)

    def validate(self, parameters: RDOVAE) -> dict[str, float]:
        """Objective, distortion and bits, means over the validation levels and by level."""
        batch = self._validation_batch()
        figures = {}
        totals = []
        for level in self.settings.validation_levels:
            batch["level"] = np.full_like(batch["newest"], level)
            # An endless step: the ramps of the rate weights are over, so that figures of all steps compare.
            loss, parts = self._compiled_loss(parameters, batch, jax.random.key(0), jnp.asarray(1e9))
            totals.append([float(loss), *map(float, parts.values())])
            figures |= {f"{k}_{level}": float(v) for k, v in parts.items()}
        means = np.mean(totals, axis=0)
        return {"loss": means[0], **dict(zip(parts, means[1:], strict=True)), **figures}

    @cached_property
    def _compiled_loss(self):
        return jax.jit(self.loss)

    def _validation_batch(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        sequences = self.settings.validation_sequences
        speech = self.draw(self.validation, rng, sequences)
        return {**speech, "newest": random_cuts(rng, sequences, num_chunks(self.settings.frames))}


def time_first(batch: dict[str, Array]) -> tuple[Float[Array, "frames batch 20"], Runs]:
    """Features and runs of a batch as the task makes it, for ``rdovae.loss``."""
    runs = Runs(*(jnp.transpose(batch[k], (2, 1, 0)) for k in ("newest", "level")))
    return jnp.swapaxes(batch["features"], 0, 1), runs


def encode_speech(model: RDOVAE, prepared: Prepared, sequences: int = 64) -> Encoded:
    """What the encoder says of so many whole sequences, ``[count, dim]``: what ``rdovae.deploy`` measures."""
    numbers = np.linspace(0, len(prepared) - 1, sequences).astype(int)
    features = np.stack([prepared.sequence(number)["features"] for number in numbers], axis=1)
    pairs = np.moveaxis(features.reshape(-1, PACKET_FRAMES, *features.shape[1:]), 1, 2)
    state = batch_state(model.encoder.init_state(), (sequences,))
    _, encoded = jax.jit(model.encoder.scan)(state, pairs.reshape(*pairs.shape[:2], -1))
    return jax.tree.map(lambda z: z.reshape(-1, z.shape[-1]), encoded)


def random_cuts(rng: np.random.Generator, batch: int, chunks: int) -> np.ndarray:
    """[batch, 2, chunks] int32, 1 where a run begins: the newest chunk and three random ones of each phase."""
    newest = np.zeros((batch, 2, chunks), np.int32)
    newest[..., 0] = 1
    for row in newest.reshape(-1, chunks):
        row[rng.choice(np.arange(1, chunks), RUNS_PER_PHASE - 1, replace=False)] = 1
    return newest


def rising_levels(newest: np.ndarray, first: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Level of each chunk: ``first`` at the newest of a run, rising with age by ``slope / 16`` a chunk, at most 15."""
    position = np.arange(newest.shape[-1])
    age = position - np.maximum.accumulate(np.where(newest > 0, position, 0), axis=-1)
    return np.minimum(NUM_LEVELS - 1, first + (slope * age + 8) // 16).astype(np.int32)
