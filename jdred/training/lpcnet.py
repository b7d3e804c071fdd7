"""Training LPCNet by teacher forcing: the likelihood of real excitations, given a past that noise has damaged.

The noise is what makes a free-running voice stable: it takes the network through pasts that its own mistakes would
make. It is drawn afresh at every step, in a closed loop of prediction and mu-law quantisation.
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jdred.config import FRAME_SAMPLES, LPC_ORDER, NUM_BANDS, LPCNetConfig
from jdred.dsp import mulaw
from jdred.dsp.filters import preemphasize
from jdred.dsp.lpc import lpc_from_cepstrum
from jdred.streaming import batch_state
from jdred.training.corpus import Prepared
from jdred.training.optimizers import clipped
from jdred.vocoder.lpcnet import CONTEXT_ROWS, LPCNet
from jdred.vocoder.sampling import log_likelihood

TABLES = ("embedding", "pitch", "factors")
"""Parameters that are no matrices."""
PIECE_SAMPLES = 40
"""The output layer runs in pieces of so much time: they fit into the cache, a whole sequence does not."""


@dataclass(frozen=True)
class LPCNetSettings:
    model: LPCNetConfig = LPCNetConfig()
    batch: int = 32
    rows: int = 10
    """Length of a training sequence in 10 ms rows; ``CONTEXT_ROWS`` more are read before it."""
    learning_rate: float = 2e-3
    """The peak; reached after ``warmup_steps``, then down to a hundredth on a cosine."""
    warmup_steps: int = 60
    muon: bool = False
    """Steps of ``optimizers.clipped``."""
    excitation_noise: float = 1.0
    """Scale of the noise on the excitation; at 1 its standard deviation per sequence is 2 indices in the mean."""
    index_noise: float = 0.3
    """Standard deviation of the noise on what the network reads, in indices."""
    cold_start: float = 0.5
    """Share of sequences whose frame-rate network has seen less than its full context, as after priming."""
    validation_batches: int = 6


class Heard(NamedTuple):
    """What the sample-rate network is given for each sample and what it should say; values 0 .. 255 of mu-law."""

    last: Float[Array, "samples ..."]
    """The last sample of the damaged past, continuous."""
    prediction: Float[Array, "samples ..."]
    """Linear prediction from the damaged past, continuous."""
    excitation: Int[Array, "samples ..."]
    """The last excitation of the damaged past."""
    target: Int[Array, "samples ..."]
    """The excitation that leads from the damaged past to the true sample."""


@dataclass(frozen=True)
class LPCNetTask:
    """``jdred.training.Task`` of LPCNet."""

    train: Prepared
    validation: Prepared
    settings: LPCNetSettings = field(default_factory=LPCNetSettings)
    name: str = "lpcnet"

    def init(self, seed: int) -> LPCNet:
        return LPCNet(self.settings.model, rngs=nnx.Rngs(seed))

    def config(self) -> dict[str, Any]:
        return {"kind": self.name, "model": asdict(self.settings.model), "settings": asdict(self.settings)}

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        peak, warmup = self.settings.learning_rate, min(self.settings.warmup_steps, max(1, total_steps // 10))
        rate = optax.warmup_cosine_decay_schedule(0.01 * peak, peak, warmup, max(total_steps, warmup + 1), 0.01 * peak)
        return clipped(rate, clip=5.0, b1=0.9, b2=0.98, muon=self.settings.muon, tables=TABLES)

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self._draw(self.train, rng)

    def loss(self, parameters: LPCNet, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        return objective(self.settings, parameters, batch, key)

    def validate(self, parameters: LPCNet) -> dict[str, float]:
        """Cross-entropy in nats per sample with the noise of training (``loss``) and without any (``clean``)."""
        rng, key = np.random.default_rng(1), jax.random.key(1)
        figures = []
        for number in range(self.settings.validation_batches):
            batch = self._draw(self.validation, rng)
            noisy, _ = _compiled_objective(self.settings, parameters, batch, jax.random.fold_in(key, number))
            clean, _ = _compiled_objective(self.settings, parameters, batch, None)
            figures.append([noisy, clean])
        noisy, clean = np.mean(figures, axis=0)
        return {"loss": float(noisy), "clean": float(clean)}

    def _draw(self, corpus: Prepared, rng: np.random.Generator) -> dict[str, np.ndarray]:
        crops = corpus.crops(rng, self.settings.batch, CONTEXT_ROWS + self.settings.rows)
        return {"features": crops["features"], "pcm": crops["pcm"]}


def objective(settings: LPCNetSettings, model: LPCNet, batch: dict[str, Array], key: Key[Array, ""] | None):
    """Cross-entropy in nats per sample, over the rows after the context; no noise of any kind without a key."""
    features = jnp.swapaxes(batch["features"], 0, 1)
    if key is None:
        started, noise = jnp.zeros(features.shape[1], jnp.int32), 0.0
    else:
        key, start_key, noise_key = jax.random.split(key, 3)
        started = draw_starts(start_key, features.shape[1], settings.cold_start)
        noise = settings.excitation_noise * draw_noise(noise_key, features.shape[1], settings.rows * FRAME_SAMPLES)
    spoken, past = align(batch["pcm"])
    # Without any context the vocoder knows no past samples either.
    past = jnp.where(started == CONTEXT_ROWS, 0.0, past)
    taps = lpc_from_cepstrum(features[CONTEXT_ROWS:, :, :NUM_BANDS], settings.model.lpc_gamma)
    heard = damage(spoken, past, taps, jnp.broadcast_to(noise, spoken.shape))
    since_start = jnp.arange(features.shape[0])[:, None] - started
    frames = batch_state(model.frame.init_state(), features.shape[1:2])
    _, condition = model.frame.scan(frames, features, since_start)
    h = model.scan(condition[CONTEXT_ROWS:], whole_indices(heard, key, settings.index_noise))
    return cross_entropy(model, h, heard.target), {}


_compiled_objective = jax.jit(objective, static_argnums=0)


def align(pcm: Int[Array, "batch samples"]) -> tuple[Float[Array, "spoken batch"], Float[Array, "16 batch"]]:
    """The pre-emphasised samples, int16 units, that the rows after the context speak, and the 16 before them.

    Row k speaks samples [160 k - 80, 160 k + 80).
    """
    signal = preemphasize(jnp.asarray(pcm, jnp.float32))[0].T
    begin, end = CONTEXT_ROWS * FRAME_SAMPLES - FRAME_SAMPLES // 2, len(signal) - FRAME_SAMPLES // 2
    return signal[begin:end], signal[begin - LPC_ORDER : begin]


def draw_starts(key: Key[Array, ""], batch: int, share: float) -> Int[Array, "batch"]:
    """The row at which each sequence starts: 0, or for a share of them a random later one up to the first spoken."""
    late_key, row_key = jax.random.split(key)
    late = jax.random.bernoulli(late_key, share, (batch,))
    return jnp.where(late, jax.random.randint(row_key, (batch,), 1, CONTEXT_ROWS + 1), 0)


def draw_noise(key: Key[Array, ""], batch: int, samples: int) -> Float[Array, "samples batch"]:
    """Whole Laplacian noise for the excitation, in indices; its standard deviation is drawn per sequence, mean 2."""
    laplace_key, scale_key = jax.random.split(key)
    scale = jnp.asarray([1.5, 0.5]) @ jax.random.exponential(scale_key, (2, batch))
    return jnp.round(scale * 0.5**0.5 * jax.random.laplace(laplace_key, (samples, batch)))


def damage(
    spoken: Float[Array, "samples batch"],
    past: Float[Array, "16 batch"],
    a: Float[Array, "rows batch 16"],
    noise: Float[Array, "samples batch"],
) -> Heard:
    """Quantise a pre-emphasised signal in the closed loop, with noise on the excitation's indices."""
    shape = (len(a), FRAME_SAMPLES, spoken.shape[1])

    def by_sample(taps, carry, x):
        history, excitation = carry
        true, noise = x
        prediction = (taps * history).sum(axis=-1)
        target = mulaw.quantize(true - prediction)
        damaged = jnp.clip(jnp.round(target + noise), 0, 255).astype(jnp.int32)
        heard = Heard(mulaw.encode(history[:, -1]), mulaw.encode(prediction), excitation, target)
        history = jnp.concatenate([history[:, 1:], (prediction + mulaw.decode(damaged))[:, None]], axis=1)
        return (history, damaged), heard

    def by_row(carry, x):
        a, *samples = x
        return jax.lax.scan(partial(by_sample, -a[:, ::-1]), carry, tuple(samples))

    first = (past.T, jnp.full(spoken.shape[1], mulaw.ZERO, jnp.int32))
    _, heard = jax.lax.scan(by_row, first, (a, spoken.reshape(shape), noise.reshape(shape)))
    return jax.tree.map(lambda x: x.reshape(spoken.shape), heard)


def whole_indices(heard: Heard, key: Key[Array, ""] | None, deviation: float) -> Int[Array, "3 samples batch"]:
    """Indices for the tables: with a key noisy and rounded at random (interpolation in the mean), else nearest."""
    indices = jnp.stack([heard.last, heard.prediction, heard.excitation.astype(jnp.float32)])
    if key is not None:
        normal_key, round_key = jax.random.split(key)
        indices += deviation * jax.random.normal(normal_key, indices.shape)
        indices += jax.random.uniform(round_key, indices.shape, minval=-0.5, maxval=0.5)
    return jnp.clip(jnp.round(indices), 0, 255).astype(jnp.int32)


def cross_entropy(
    model: LPCNet, h: Float[Array, "samples batch gru_b"], target: Int[Array, "samples batch"]
) -> Float[Array, ""]:
    """Mean negative log-likelihood of the targets; ``samples`` is a multiple of ``PIECE_SAMPLES``."""

    @jax.checkpoint
    def piece(total, x):
        h, target = x
        return total - log_likelihood(model.output(h), target).sum(), None

    pieces = (h.reshape(-1, PIECE_SAMPLES, *h.shape[1:]), target.reshape(-1, PIECE_SAMPLES, *target.shape[1:]))
    total, _ = jax.lax.scan(piece, jnp.zeros(()), pieces)
    return total / target.size
