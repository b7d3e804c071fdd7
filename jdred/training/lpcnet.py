"""Training LPCNet by teacher forcing: the likelihood of real excitations, given a past that noise has damaged.

The noise is what makes a free-running voice stable: it takes the network through pasts that its own mistakes would
make. It is drawn afresh at every step, in a closed loop of prediction and mu-law quantisation.

In place of recorded speech it may hear what a FARGAN says from the same features (``teacher``): that follows from them
and the past alone, so less of it is left to chance (after Kim and Rush, "Sequence-Level Knowledge Distillation", 2016).
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, Shaped

from jdred.config import FRAME_SAMPLES, LPC_ORDER, NUM_BANDS, LPCNetConfig
from jdred.dsp import INT16_SCALE, mulaw
from jdred.dsp.filters import deemphasize, preemphasize
from jdred.dsp.lpc import predict_by_frame, reflections_from_cepstrum
from jdred.streaming import batch_state
from jdred.training import Task
from jdred.training.corpus import Prepared
from jdred.training.fargan import FIRST_SAMPLE, PAST_SAMPLES, load_fargan, speak
from jdred.training.optimizers import clipped
from jdred.training.schedule import cosine
from jdred.vocoder import fargan
from jdred.vocoder.bunch import Indices, one_period_ago
from jdred.vocoder.frame_network import CONTEXT_ROWS
from jdred.vocoder.lpcnet import LPCNet, linear_prediction, reflect
from jdred.vocoder.sampling import log_likelihood

TABLES = ("embedding", "pitch", "factors")
"""Parameters that are no matrices."""
PIECE_SAMPLES = 40
"""The output layer runs in pieces of so much time: they fit into the cache, a whole sequence does not."""


@dataclass(frozen=True)
class LPCNetSettings:
    model: LPCNetConfig = LPCNetConfig(bunch=4, long_term=True)
    teacher: str = ""
    """A FARGAN, shipped name or path, that speaks in place of the recorded voices."""
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
    residual: float = 2.0
    """End to end: weight of the excitation's size, as the log of the mu-law's slope there ..."""
    distance: float = 2.0
    """... and of the distance of the reflection coefficients from those of the cepstrum, as log area ratios."""
    validation_batches: int = 6


class Heard(NamedTuple):
    """What the sample-rate network is given for each sample and what it should say; values 0 .. 255 of mu-law.

    All are continuous, with slopes in the linear prediction where that is the network's own.
    """

    last: Float[Array, "samples ..."]
    """The last sample of the damaged past."""
    prediction: Float[Array, "samples ..."]
    """Linear prediction from the damaged past."""
    excitation: Float[Array, "samples ..."]
    """The last excitation of the damaged past, whole but for rounding errors."""
    target: Float[Array, "samples ..."]
    """The excitation that leads from the damaged past to the true sample."""
    one_period_ago: Float[Array, "samples ..."] | None = None
    """The excitation of the damaged past then; None where the network does not read it."""


class Speech(NamedTuple):
    """What a batch says and what is heard of it; pre-emphasised, int16 units."""

    spoken: Float[Array, "samples batch"]
    past: Float[Array, "16 batch"]
    """The samples before."""
    damaged: Float[Array, "samples batch"]
    """``spoken`` as the network hears it."""


@dataclass(frozen=True)
class LPCNetTask(Task):
    """``jdred.training.Task`` of LPCNet."""

    train: Prepared
    validation: Prepared
    settings: LPCNetSettings = field(default_factory=LPCNetSettings)
    name: str = "lpcnet"

    def init(self, seed: int) -> LPCNet:
        return LPCNet(self.settings.model, rngs=nnx.Rngs(seed))

    def config(self) -> dict[str, Any]:
        settings = asdict(self.settings)
        return {"kind": "lpcnet", "task": self.name, "model": settings["model"], "settings": settings}

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        rate = cosine(self.settings.learning_rate, self.settings.warmup_steps, total_steps)
        return clipped(rate, clip=5.0, b1=0.9, b2=0.98, muon=self.settings.muon, tables=TABLES)

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self._draw(self.train, rng)

    @cached_property
    def teacher(self) -> fargan.FARGAN | None:
        """The one that speaks, if any."""
        return load_fargan(self.settings.teacher) if self.settings.teacher else None

    def loss(self, parameters: LPCNet, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        return objective(self.settings, parameters, spoken_by(self.teacher, batch), key)

    def validate(self, parameters: LPCNet) -> dict[str, float]:
        """The objective with the noise of training (``loss``); and without any the cross-entropy in nats a sample.

        ``clean`` is that of the mu-law indices, ``linear`` that of the sample itself, in int16 units: it stays
        comparable where linear predictions differ. With a teacher all are those of its speech.
        """
        rng, key = np.random.default_rng(1), jax.random.key(1)
        figures = []
        for number in range(self.settings.validation_batches):
            batch = _compiled_spoken_by(self.teacher, self._draw(self.validation, rng))
            noisy, _ = _compiled_objective(self.settings, parameters, batch, jax.random.fold_in(key, number))
            _, clean = _compiled_objective(self.settings, parameters, batch, None)
            figures.append([noisy, clean["entropy"], clean["linear"]])
        return dict(zip(("loss", "clean", "linear"), map(float, np.mean(figures, axis=0)), strict=True))

    def _draw(self, corpus: Prepared, rng: np.random.Generator) -> dict[str, np.ndarray]:
        frames, past = CONTEXT_ROWS + self.settings.rows, 0
        if self.settings.teacher:
            frames, past = frames + fargan.FARGAN.lookahead_rows, PAST_SAMPLES
        return corpus.speech(rng, self.settings.batch, frames, past)


def spoken_by(teacher: fargan.FARGAN | None, batch: dict[str, Array]) -> dict[str, Array]:
    """A batch of ``training.fargan`` as one for ``objective``: true up to the middle of row 3, then the teacher's.

    The first row that is learned is row 4. Without a teacher a batch stays what it was.
    """
    if teacher is None:
        return batch
    past = batch["pcm"][:, :FIRST_SAMPLE] / INT16_SCALE
    said, _ = deemphasize(speak(teacher, batch)[1], past[:, -1])
    pcm = jnp.concatenate([past, said], axis=1)[:, PAST_SAMPLES:]
    pcm = INT16_SCALE * jnp.pad(pcm, [(0, 0), (0, PAST_SAMPLES)])  # the half row after the last one spoken
    return {"features": batch["features"][:, :-1], "pcm": pcm}


_compiled_spoken_by = jax.jit(spoken_by)


def objective(settings: LPCNetSettings, model: LPCNet, batch: dict[str, Array], key: Key[Array, ""] | None):
    """Cross-entropy in nats per sample, over the rows after the context; no noise of any kind without a key.

    See ``judge`` for what end to end adds, and for the figures.
    """
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
    since_start = jnp.arange(features.shape[0])[:, None] - started
    frames = batch_state(model.frame.init_state(), features.shape[1:2])
    _, condition = model.frame.scan(frames, features, since_start)
    features, condition = features[CONTEXT_ROWS:], condition[CONTEXT_ROWS:]
    a = jax.lax.stop_gradient(linear_prediction(model, features, condition))
    damaged = damage(spoken, past, a, jnp.broadcast_to(noise, spoken.shape))
    return judge(settings, model, features, condition, Speech(spoken, past, damaged), key)


def judge(
    settings: LPCNetSettings,
    model: LPCNet,
    features: Float[Array, "rows batch 20"],
    condition: Float[Array, "rows batch condition"],
    speech: Speech,
    key: Key[Array, ""] | None,
):
    """The loss of a batch whose damage is done, and figures.

    End to end, with a key: indices are not rounded, and the gradient goes through them and the target into the
    linear prediction. The likelihood is then that of the sample, not of the index, or a poor prediction would pay;
    and large excitations and reflection coefficients far from the cepstrum's cost more.
    """
    own = settings.model.end_to_end
    pitch = features if settings.model.long_term else None
    heard = observe(speech, linear_prediction(model, features, condition), pitch)
    values, target = noisy_indices(heard, key, settings.index_noise, whole=not own or key is None)
    entropy = cross_entropy(model, model.scan(condition, values), target)
    slope = mulaw.log_slope(heard.target).mean()
    figures = {"entropy": entropy, "linear": entropy + slope}
    if not own:
        return entropy, figures
    true = reflections_from_cepstrum(features[..., :NUM_BANDS])
    distance = jnp.mean((log_area_ratios(reflect(model, condition)) - log_area_ratios(true)) ** 2)
    loss = entropy + (1 + settings.residual) * slope + settings.distance * distance
    return loss, figures | {"distance": distance}


_compiled_objective = jax.jit(objective, static_argnums=0)


def align(pcm: Shaped[Array, "batch samples"]) -> tuple[Float[Array, "spoken batch"], Float[Array, "16 batch"]]:
    """Of PCM in int16 units the pre-emphasised samples that the rows after the context speak, and the 16 before them.

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
) -> Float[Array, "samples batch"]:
    """A pre-emphasised signal quantised in the closed loop, with noise on the excitation's indices."""
    shape = (len(a), FRAME_SAMPLES, spoken.shape[1])

    def by_sample(taps, history, x):
        true, noise = x
        prediction = (taps * history).sum(axis=-1)
        excitation = jnp.clip(mulaw.quantize(true - prediction) + noise, 0, 255)
        damaged = prediction + mulaw.decode(excitation)
        return jnp.concatenate([history[:, 1:], damaged[:, None]], axis=1), damaged

    def by_row(history, x):
        a, *samples = x
        return jax.lax.scan(partial(by_sample, -a[:, ::-1]), history, tuple(samples))

    _, damaged = jax.lax.scan(by_row, past.T, (a, spoken.reshape(shape), noise.reshape(shape)))
    return damaged.reshape(spoken.shape)


def observe(
    speech: Speech, a: Float[Array, "rows batch 16"], pitch: Float[Array, "rows batch 20"] | None = None
) -> Heard:
    """What there is to hear and to say, given the linear prediction and perhaps features with the pitch."""
    signal = jnp.concatenate([speech.past, speech.damaged])
    prediction = predict_by_frame(jnp.moveaxis(a, 0, -2), signal.T).T
    excitation = mulaw.encode(speech.damaged - prediction)
    before = jnp.concatenate([jnp.full_like(excitation[:1], mulaw.ZERO), excitation[:-1]])
    last = signal[LPC_ORDER - 1 : -1]
    ago = None if pitch is None else one_period_ago(excitation, pitch)
    return Heard(mulaw.encode(last), mulaw.encode(prediction), before, mulaw.encode(speech.spoken - prediction), ago)


def log_area_ratios(reflections: Float[Array, "..."]) -> Float[Array, "..."]:
    """Of reflection coefficients; the pole is moved a little out of reach."""
    return jnp.log((1.01 + reflections) / (1.01 - reflections))


def noisy_indices(
    heard: Heard, key: Key[Array, ""] | None, deviation: float, *, whole: bool
) -> tuple[Indices, Indices]:
    """Indices for the tables, ``[known, samples, batch]``, and the target.

    Args:
      key: without it there is no noise, and indices are rounded to the nearest.
      whole: indices are rounded, with noise at random, which is interpolation in the mean; else they stay as they are.
    """
    ago = [] if heard.one_period_ago is None else [heard.one_period_ago]
    values, target = jnp.stack([heard.last, heard.prediction, heard.excitation, *ago]), heard.target
    if key is not None:
        normal_key, round_key = jax.random.split(key)
        values += deviation * jax.random.normal(normal_key, values.shape)
        if whole:
            values += jax.random.uniform(round_key, values.shape, minval=-0.5, maxval=0.5)
    values = jnp.clip(values, 0, 255)
    return tuple(jnp.round(x).astype(jnp.int32) for x in (values, target)) if whole else (values, target)


def cross_entropy(model: LPCNet, h: Float[Array, "samples batch gru_b"], target: Indices) -> Float[Array, ""]:
    """Mean negative log-likelihood of the targets; ``samples`` is a multiple of ``PIECE_SAMPLES``."""

    @jax.checkpoint
    def piece(total, x):
        h, target = x
        return total - log_likelihood(model.output(h), target).sum(), None

    pieces = (h.reshape(-1, PIECE_SAMPLES, *h.shape[1:]), target.reshape(-1, PIECE_SAMPLES, *target.shape[1:]))
    total, _ = jax.lax.scan(piece, jnp.zeros(()), pieces)
    return total / target.size
