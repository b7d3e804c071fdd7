"""Training LPCNet through its own output, after teacher forcing.

It speaks freely, a FARGAN hears that as if it had said so itself, and what the FARGAN would say next is what to learn:
``student.correction`` of a vocoder of another kind.

Teacher forcing asks for the likelihood of each sample and leaves the choice to chance; here the samples that are chosen
are judged, by their wave and their spectra. The gradient goes through the drawing of samples and through all that was
said before (``training.slopes``).

It is found in three passes. The vocoder speaks as it always does. What it said is replayed with slopes, to learn how
each state and each choice should have been. At last the weights are asked for that, for all samples at once: gathered
in the replay, their gradients would cost it most of its time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from jdred.config import FRAME_SAMPLES, LPC_ORDER, LPCNetConfig
from jdred.dsp import INT16_SCALE, bands
from jdred.dsp.filters import overlap, preemphasize
from jdred.streaming import batch_state
from jdred.training import slopes
from jdred.training.corpus import Prepared
from jdred.training.fargan import FORCED_SAMPLES, PAST_SAMPLES, beginning, spectral_error
from jdred.training.lpcnet import TABLES, LPCNetTask
from jdred.training.optimizers import clipped
from jdred.training.schedule import steady
from jdred.training.student import after_hearing, strung
from jdred.vocoder import sampling
from jdred.vocoder.bunch import gates_by_sample, read_by_bunch
from jdred.vocoder.fargan import FARGAN, FORCED_SUBFRAMES, SUBFRAME_SAMPLES
from jdred.vocoder.lpcnet import LPCNet, LPCNetVoice, Manner, Told, VoiceState, fold, linear_prediction

FIRST_ROW = FARGAN.prime_rows - LPCNetVoice.prime_rows
"""Of a sequence the row that LPCNet hears first; it speaks from the middle of row ``FARGAN.prime_rows`` on."""
KNOWN_SAMPLES = LPCNetVoice.prime_rows * FRAME_SAMPLES + FRAME_SAMPLES // 2
EXCITATION = 2
"""Which of the indices known before a sample is that of the last excitation."""
QUIET = 3e-4
"""10 in int16 units: an excitation near zero comes in steps of 6."""
QUIET_BAND = 1.0
"""The band energy that such noise has about."""
BANDS = 1.0
"""Weight of the error of the bands."""


@dataclass(frozen=True)
class FreeRunSettings:
    model: LPCNetConfig = LPCNetConfig(bunch=4, long_term=True)
    teacher: str = "fargan"
    """Weights of the FARGAN that corrects: a shipped name or a path."""
    batch: int = 32
    rows: int = 10
    """Rows (10 ms) of a training sequence after those that are heard only, the first is half known."""
    learning_rate: float = 6e-4
    warmup_steps: int = 100
    decay: float = 2e-5
    """See ``schedule.steady``."""
    muon: bool = False
    """Steps of ``optimizers.clipped``."""
    quiet_floor: float = 0.1
    """See ``SpeakingSettings``."""
    validation_batches: int = 8

    def __post_init__(self):
        """Raises ``ValueError``: too few rows for bands to be measured, no teacher, a linear prediction of its own."""
        if self.rows < 3:
            raise ValueError(f"expected at least 3 rows, found {self.rows}")
        if not self.teacher:
            raise ValueError("expected a teacher, found none")
        if self.model.end_to_end:
            raise ValueError("expected an LPCNet without a linear prediction of its own: no gradient goes through that")


class Spoken(NamedTuple):
    """What was said freely, and how it came to be; steps are sub-frames of 40 samples."""

    start: VoiceState
    """Before."""
    told: Told
    """Bunches first."""
    said: Float[Array, "steps batch 40"]
    """Pre-emphasised, in [-1, 1]."""
    indices: Int[Array, "known samples batch"]
    """What was read before each sample, those that were heard included."""
    drawn: Int[Array, "bunches bunch batch"]
    """The excitations."""


class Aim(NamedTuple):
    """What was to be said."""

    better: Float[Array, "steps batch 40"]
    """By the teacher, after what was said before each step."""
    gain: Float[Array, "steps batch 1"]
    """The teacher's."""
    truth: Float[Array, "batch samples"]
    """The speech."""


Judge = Callable[[Aim, Float[Array, "steps batch 40"]], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]
"""Of what was to be said and what was said: the loss and figures."""


class Moves(NamedTuple):
    """What depends on the weights at once, bunches first: as it was, as it could be, or a gradient."""

    h_a: Float[Array, "bunches batch gru_a"]
    h_b: Float[Array, "bunches bunch batch gru_b"]
    logits: Float[Array, "bunches bunch batch 8"]
    """On the path to the excitation that was drawn."""


def correct(model: LPCNet, teacher: FARGAN, batch: dict[str, Array], key: Key[Array, ""], judge: Judge):
    """Let a model speak freely and be judged; it is judged without the post-filter.

    Made for ``jax.value_and_grad``: the gradient is that of ``replay``, which fades and has bounds (``slopes``); none
    goes into the past that was heard. Higher derivatives are not right.

    Returns:
      the loss, the figures of the judge, what was to be said and what was said; the last two have no gradient.
    """
    voice, (speak_key, replay_key) = fold(model), jax.random.split(key)
    features = jnp.swapaxes(batch["features"], 0, 1)[FIRST_ROW : -FARGAN.lookahead_rows]
    _, condition = voice.frame.scan(batch_state(voice.frame.init_state(), features.shape[1:2]), features)
    fixed, heard = jax.lax.stop_gradient((voice, condition))
    spoken = speak(fixed, features, heard, known(batch), speak_key)
    aim = corrected(teacher, batch, spoken.said)
    within = jax.random.uniform(replay_key, spoken.drawn.shape)

    def judged(extra: Moves):
        said, moves = replay(fixed, spoken, within, extra)
        loss, figures = judge(aim, said)
        return loss, (figures, moves)

    (loss, (figures, moves)), gradient = jax.value_and_grad(judged, has_aux=True)(nothing(fixed, spoken))
    depend = again(voice, spoken, spread(voice.told(features, condition), voice.tables.bunch), moves)
    batch_size = features.shape[1]
    pull = sum(jnp.vdot(slopes.bounded(g, batch_size), move) for g, move in zip(gradient, depend, strict=True))
    return loss + pull - jax.lax.stop_gradient(pull), figures, aim, spoken.said


def known(batch: dict[str, Array]) -> Float[Array, "batch 400"]:
    """The PCM that LPCNet hears."""
    begin = FIRST_ROW * FRAME_SAMPLES
    return batch["pcm"][:, begin : begin + KNOWN_SAMPLES] / INT16_SCALE


def speak(
    voice: LPCNetVoice,
    features: Float[Array, "rows batch 20"],
    condition: Float[Array, "rows batch condition"],
    pcm: Float[Array, "batch 400"],
    key: Key[Array, ""],
) -> Spoken:
    """Let a voice go on freely from a real past up to the end of the features."""
    start, _ = voice.remember(features[: LPCNetVoice.prime_rows + 1], pcm)
    told = voice.told(features, condition)
    steps = spread(told, SUBFRAME_SAMPLES)
    uniforms = jax.random.uniform(key, (len(steps.lag), len(pcm), SUBFRAME_SAMPLES, sampling.NUM_BITS))
    _, said = jax.lax.scan(lambda state, x: voice.speak(state, *x), start, (steps, uniforms))
    signal = jnp.concatenate([preemphasize(INT16_SCALE * pcm)[0], strung(said)], axis=-1)
    indices, excitation = voice.observe(linear_prediction(voice, features, condition), features, signal)
    drawn = jnp.concatenate([indices[EXCITATION, KNOWN_SAMPLES + 1 :], excitation[None, :, -1]])
    bunch = voice.tables.bunch
    drawn = drawn.reshape(-1, bunch, len(pcm))
    return Spoken(start, spread(told, bunch), said / INT16_SCALE, indices, drawn)


def spread(told: Told, samples: int) -> Told:
    """What rows tell every so many samples that are said freely."""
    every = FRAME_SAMPLES // samples
    return jax.tree.map(lambda x: jnp.repeat(x, every, axis=0)[KNOWN_SAMPLES // samples :], told)


def corrected(teacher: FARGAN, batch: dict[str, Array], said: Float[Array, "steps batch 40"]) -> Aim:
    """What the teacher would say in place of each step, all steps before being said."""
    truth = beginning(teacher, batch)[0]
    better, gain = after_hearing(teacher, batch, jnp.concatenate([truth[:, :FORCED_SAMPLES], strung(said)], axis=-1))
    return Aim(better[FORCED_SUBFRAMES:], gain[FORCED_SUBFRAMES:], truth[:, FORCED_SAMPLES:])


def nothing(voice: LPCNetVoice, spoken: Spoken) -> Moves:
    """To add."""
    bunches, bunch, batch = spoken.drawn.shape
    return Moves(
        jnp.zeros((bunches, batch, voice.gru_a.width)),
        jnp.zeros((bunches, bunch, batch, voice.gru_b.width)),
        jnp.zeros((bunches, bunch, batch, sampling.NUM_BITS)),
    )


def replay(
    voice: LPCNetVoice, spoken: Spoken, within: Float[Array, "bunches bunch batch"], extra: Moves
) -> tuple[Float[Array, "steps batch 40"], Moves]:
    """Say the same again, with a slope in all that was said before and in what is added to each move.

    Returns:
      what was said, and the moves.
    """
    start, nodes = spoken.start, sampling.path(spoken.drawn)[0]

    def say_bunch(carry, x):
        told, drawn, nodes, within, extra = x
        states, logits = [], []

        def settle(place: int | None, h: Array) -> Array:
            states.append(h + (extra.h_a if place is None else extra.h_b[place]))
            return states[-1]

        def draw(place: int, h_b: Array) -> Array:
            logits.append(voice.output.at(h_b, nodes[place]) + extra.logits[place])
            return slopes.drawn(drawn[place], logits[-1], within[place], voice.confinement)

        manner = Manner(draw, slopes.quantize, slopes.look_up_whole, settle)
        carry, said = voice.say_bunch(told, slopes.fading(carry), manner)
        h_a, *h_b = states
        return carry, (said, Moves(h_a, jnp.stack(h_b), jnp.stack(logits)))

    last = start.signal[:, -LPC_ORDER:]
    first = (start.h_a, start.h_b, last, 1.0 * start.excitation, 1.0 * jnp.moveaxis(start.read, -1, 0))
    _, (said, moves) = jax.lax.scan(say_bunch, first, (spoken.told, spoken.drawn, nodes, within, extra))
    said = said.reshape(-1, SUBFRAME_SAMPLES, said.shape[-1])
    return jnp.moveaxis(said, 1, -1) / INT16_SCALE, moves


def again(voice: LPCNetVoice, spoken: Spoken, told: Told, moves: Moves) -> Moves:
    """Each move once more, from those before it, which stay: how they depend on the weights."""
    bunch, tables = voice.tables.bunch, voice.tables
    before_a = jnp.concatenate([spoken.start.h_a[None], moves.h_a[:-1]])
    read = read_by_bunch(spoken.indices, bunch)[:, KNOWN_SAMPLES // bunch :]
    h_a = voice.gru_a.advance(before_a, told.gates_a + tables.of_bunch(read))
    all_b = moves.h_b.reshape(-1, *moves.h_b.shape[2:])
    before_b = jnp.concatenate([spoken.start.h_b[None], all_b[:-1]])
    gates = jnp.repeat(told.gates_b + voice.gru_b.project(moves.h_a), bunch, axis=0)
    h_b = voice.gru_b.advance(before_b, gates + gates_by_sample(tables, spoken.indices[:, KNOWN_SAMPLES:]))
    logits = jnp.take_along_axis(voice.output(moves.h_b), sampling.path(spoken.drawn)[0], axis=-1)
    return Moves(h_a, h_b.reshape(moves.h_b.shape), logits)


def resemblance(
    quiet_floor: float, aim: Aim, said: Float[Array, "steps batch 40"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss of what was said, and its parts.

    ``samples`` and ``spectral`` as in ``student.errors``, but for a voice that cannot be as soft as it would: what lies
    below ``QUIET`` hardly counts. ``bands``: of log10 band energies, against speech; it keeps the voice from saying too
    little where it does not know better.
    """
    samples = jnp.mean(jnp.abs(said - aim.better) / (aim.gain + 10 * QUIET))
    said = strung(said)
    spectral = spectral_error(strung(aim.better), said, quiet_floor, QUIET)
    loudness = jnp.mean(jnp.abs(log_bands(aim.truth) - log_bands(said)))
    return samples + spectral + BANDS * loudness, {"samples": samples, "spectral": spectral, "bands": loudness}


def log_bands(signal: Float[Array, "batch samples"]) -> Float[Array, "batch windows 18"]:
    """log10 of band energies, int16 units, of 20 ms every 5 ms."""
    windows = overlap(INT16_SCALE * signal.reshape(len(signal), -1, FRAME_SAMPLES // 2), 4)
    return jnp.log10(bands.band_energies(bands.power(bands.spectrum(windows))) + QUIET_BAND)


@dataclass(frozen=True)
class FreeRunTask(LPCNetTask):
    """``jdred.training.Task`` of an LPCNet that is corrected; made to start from trained weights."""

    settings: FreeRunSettings = field(default_factory=FreeRunSettings)
    name: str = "freerun"

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        rate = steady(self.settings.learning_rate, self.settings.warmup_steps, self.settings.decay, total_steps)
        return clipped(rate, clip=0.3, b1=0.8, b2=0.95, muon=self.settings.muon, tables=TABLES)

    def loss(self, parameters: LPCNet, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        judge = partial(resemblance, self.settings.quiet_floor)
        return correct(parameters, self.teacher, batch, key, judge)[:2]

    def validate(self, parameters: LPCNet) -> dict[str, float]:
        """The errors behind the teacher."""
        rng, key = np.random.default_rng(1), jax.random.key(1)
        figures = []
        for number in range(self.settings.validation_batches):
            batch, drawn = self._draw(self.validation, rng), jax.random.fold_in(key, number)
            loss, parts = _heard(self.settings.quiet_floor, parameters, self.teacher, batch, drawn)
            figures.append({"loss": loss, **parts})
        return jax.tree.map(lambda *values: float(np.mean(values)), *figures)

    def _draw(self, corpus: Prepared, rng: np.random.Generator) -> dict[str, np.ndarray]:
        frames = FARGAN.prime_rows + self.settings.rows + FARGAN.lookahead_rows
        return corpus.speech(rng, self.settings.batch, frames, PAST_SAMPLES)


@partial(jax.jit, static_argnums=0)
def _heard(quiet_floor: float, model: LPCNet, teacher: FARGAN, batch: dict[str, Array], key: Key[Array, ""]):
    return correct(model, teacher, batch, key, partial(resemblance, quiet_floor))[:2]
