"""Training the feature predictor of packet loss concealment on bursty losses."""

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jdred.config import NUM_BANDS, PACKET_FRAMES, PredictorConfig
from jdred.dsp.bands import log_energies_from_cepstrum
from jdred.link.channel import PACKET_MS, gilbert_elliott
from jdred.plc import predictor as inputs
from jdred.plc.concealer import SILENCE
from jdred.plc.predictor import Predictor
from jdred.streaming import batch_state
from jdred.training import Task
from jdred.training.corpus import Prepared
from jdred.training.optimizers import clipped
from jdred.training.schedule import cosine


@dataclass(frozen=True)
class PLCSettings:
    model: PredictorConfig = PredictorConfig()
    batch: int = 64
    frames: int = 500
    """Length of a training sequence in 10 ms frames."""
    learning_rate: float = 2e-3
    """The peak; reached after ``warmup_steps``, then down to a hundredth on a cosine."""
    warmup_steps: int = 100
    min_loss: float = 0.05
    max_loss: float = 0.5
    """Range of the share of lost packets; each sequence draws its own."""
    max_burst_packets: float = 20.0
    """Mean bursts are drawn between 1 and this, evenly in the logarithm."""
    drop: float = 0.02
    """Share of received frames lost on their own (10 ms), whatever the packets."""
    restore: float = 0.1
    """Share of lost frames received all the same: the far end of a long burst is nothing to learn from."""
    no_burg: float = 0.1
    """Share of received frames of which only the features are known, as from DRED."""
    voiced_bias: float = 1.0
    """Extra weight of too much energy in voiced frames."""
    reach: float = 12.0
    """Lost frames in a row after which a prediction counts for 1/e of the first: what is played fades out."""
    muon: bool = False
    """Steps of ``optimizers.clipped``."""
    validation_sequences: int = 64


@dataclass(frozen=True)
class PLCTask(Task):
    """``jdred.training.Task`` of the feature predictor."""

    train: Prepared
    validation: Prepared
    settings: PLCSettings = field(default_factory=PLCSettings)
    name: str = "plc"

    def init(self, seed: int) -> Predictor:
        return Predictor(self.settings.model, rngs=nnx.Rngs(seed))

    def config(self) -> dict[str, Any]:
        return {"kind": self.name, "model": asdict(self.settings.model), "settings": asdict(self.settings)}

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        rate = cosine(self.settings.learning_rate, self.settings.warmup_steps, total_steps)
        return clipped(rate, clip=5.0, b1=0.8, b2=0.95, muon=self.settings.muon, weight_decay=1e-4)

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self._draw(self.train, rng, self.settings.batch)

    def loss(self, parameters: Predictor, batch: dict[str, Array], key: Array, step: Array):
        return objective(parameters, batch, self.settings)

    def validate(self, parameters: Predictor) -> dict[str, float]:
        """The loss and its terms, and those of holding the last known row (``hold_...``) to compare with."""
        batch = self._draw(self.validation, np.random.default_rng(1), self.settings.validation_sequences)
        loss, terms = objective(parameters, batch, self.settings)
        hold_loss, hold_terms = hold_objective(batch, self.settings)
        figures = {"loss": loss, **terms, "hold_loss": hold_loss, **{f"hold_{k}": v for k, v in hold_terms.items()}}
        return {k: float(v) for k, v in figures.items()}

    def _lost(self, rng: np.random.Generator, sequences: int) -> Bool[np.ndarray, "sequences frames"]:
        return draw_losses(rng, self.settings, sequences)

    def _crops(self, corpus: Prepared, rng: np.random.Generator, sequences: int) -> dict[str, np.ndarray]:
        crops = corpus.crops(rng, sequences, self.settings.frames)
        return {"features": crops["features"], "burg": crops["burg"]}

    def _draw(self, corpus: Prepared, rng: np.random.Generator, sequences: int) -> dict[str, np.ndarray]:
        crops, lost = self._crops(corpus, rng, sequences), self._lost(rng, sequences)
        weight = np.where(lost, np.exp(-(frames_since(lost) - 1) / self.settings.reach), 0.0)
        return {
            **crops,
            "lost": lost,
            "burg_known": rng.random(lost.shape) >= self.settings.no_burg,
            # A mean over all frames with these weights is the mean over lost frames, however the batch is split.
            "weight": np.float32(weight / max(weight.mean(), 1e-9)),
        }


def draw_losses(
    rng: np.random.Generator, settings: PLCSettings, sequences: int
) -> Bool[np.ndarray, "sequences frames"]:
    """Which frames are lost: a Gilbert model of packets per sequence, then single frames dropped and restored."""
    loss = rng.uniform(settings.min_loss, settings.max_loss, sequences)
    burst_ms = PACKET_MS * np.exp(rng.uniform(0, np.log(settings.max_burst_packets), sequences))
    packets = settings.frames // PACKET_FRAMES + 1
    bad = _draw_packets(jax.random.key(rng.integers(1 << 32)), packets, loss, burst_ms)
    # Packets begin at an even or an odd frame.
    first = rng.integers(PACKET_FRAMES, size=(sequences, 1))
    frames = np.repeat(np.asarray(bad), PACKET_FRAMES, axis=1)
    lost = np.take_along_axis(frames, first + np.arange(settings.frames), axis=1)
    return lost ^ (rng.random(lost.shape) < np.where(lost, settings.restore, settings.drop))


def frames_since(lost: Bool[np.ndarray, "... frames"]) -> Int[np.ndarray, "... frames"]:
    """How many frames in a row are lost up to each, 0 where one is not."""
    time = np.arange(1, lost.shape[-1] + 1)
    return time - np.maximum.accumulate(np.where(lost, 0, time), axis=-1)


@partial(jax.jit, static_argnums=1)
def _draw_packets(
    key: Key[Array, ""], packets: int, loss: Float[Array, "sequences"], burst_ms: Float[Array, "sequences"]
) -> Bool[Array, "sequences packets"]:
    """``gilbert_elliott`` for each sequence; compiled once for each number of packets."""
    keys = jax.random.split(key, len(loss))
    return jax.vmap(gilbert_elliott, in_axes=(0, None, 0, 0))(keys, packets, loss, burst_ms)


def network_inputs(
    features: Float[Array, "... time 20"],
    burg: Float[Array, "... time 36"],
    lost: Bool[Array, "... time"],
    burg_known: Bool[Array, "... time"],
) -> Float[Array, "... time 57"]:
    """The rows that the concealer would feed: no features of its own for a frame that follows on unheard sound."""
    unheard = lost | ~burg_known
    resumes = jnp.concatenate([jnp.zeros_like(unheard[..., :1]), unheard[..., :-1]], axis=-1)
    x = jnp.where(resumes[..., None], inputs.resumed(burg), inputs.received(burg, features))
    x = jnp.where(burg_known[..., None], x, inputs.described(features))
    return jnp.where(lost[..., None], 0.0, x)


def prediction_loss(
    predicted: Float[Array, "... 20"], true: Float[Array, "... 20"], weight: Float[Array, "..."], voiced_bias: float
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Loss of libopus's predictor and its terms, as weighted means.

    Absolute errors of features and of log band energies, where too much energy in voiced frames costs extra; too
    little correlation costs a bit; beyond an octave a pitch error costs no more.
    """
    error = predicted - true
    bands = log_energies_from_cepstrum(predicted[..., :NUM_BANDS]) - log_energies_from_cepstrum(true[..., :NUM_BANDS])
    voiced = jnp.clip(4 * true[..., 19:], 0.0, 1.0)
    pitch = jnp.abs(error[..., 18])

    def mean(x: Array) -> Array:
        return jnp.mean(jnp.mean(x, axis=-1) * weight)

    terms = {
        "feature": mean(jnp.abs(error)),
        "correlation": 0.1 * mean(jnp.maximum(0.0, -error[..., 19:])),
        "band": mean(jnp.abs(bands)),
        "band_excess": voiced_bias * mean(voiced * jnp.maximum(0.0, bands)),
        "pitch": mean((jnp.minimum(pitch, 1.0) + 8 * jnp.minimum(pitch, 0.4))[..., None]),
    }
    return sum(terms.values()), terms


@partial(jax.jit, static_argnames="settings")
def objective(predictor: Predictor, batch: dict[str, Array], settings: PLCSettings):
    """Loss of the predictions of lost frames, and its terms."""
    return prediction_loss(predict(predictor, batch), batch["features"], batch["weight"], settings.voiced_bias)


def predict(predictor: Predictor, batch: dict[str, Array]) -> Float[Array, "batch frames 20"]:
    """What the predictor says of every frame of a batch."""
    x = network_inputs(batch["features"], batch["burg"], batch["lost"], batch["burg_known"])
    states = batch_state(predictor.init_state(), x.shape[:1])
    _, predicted = predictor.scan(states, jnp.swapaxes(x, 0, 1))
    return jnp.swapaxes(predicted, 0, 1)


@partial(jax.jit, static_argnames="settings")
def hold_objective(batch: dict[str, Array], settings: PLCSettings):
    """The same loss when every lost frame repeats the row before the loss, silence where there was none yet: what the
    network has to beat.
    """
    time = jnp.arange(batch["lost"].shape[1])
    last = jax.lax.cummax(jnp.where(batch["lost"], -1, time), axis=1)[..., None]
    held = jnp.where(last < 0, SILENCE, jnp.take_along_axis(batch["features"], jnp.maximum(last, 0), axis=1))
    return prediction_loss(held, batch["features"], batch["weight"], settings.voiced_bias)
