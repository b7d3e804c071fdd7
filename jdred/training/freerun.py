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
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jdred.config import FRAME_SAMPLES, LPC_ORDER, LPCNetConfig
from jdred.dsp import INT16_SCALE, bands, mulaw
from jdred.dsp.filters import overlap, preemphasize
from jdred.streaming import batch_state
from jdred.training import Task, slopes
from jdred.training.corpus import Prepared
from jdred.training.fargan import FORCED_SAMPLES, PAST_SAMPLES, beginning, load_fargan, spectral_error
from jdred.training.lpcnet import TABLES
from jdred.training.optimizers import clipped
from jdred.training.schedule import steady
from jdred.training.student import strung
from jdred.vocoder import sampling
from jdred.vocoder.bunch import read_by_bunch
from jdred.vocoder.fargan import FARGAN, FORCED_SUBFRAMES, SUBFRAME_SAMPLES, SUBFRAMES, by_subframe
from jdred.vocoder.lpcnet import LPCNet, LPCNetVoice, Told, VoiceState, fold, linear_prediction

FIRST_ROW = FARGAN.prime_rows - LPCNetVoice.prime_rows
"""Of a sequence the row that LPCNet hears first; it speaks from the middle of row ``FARGAN.prime_rows`` on."""
KNOWN_SAMPLES = LPCNetVoice.prime_rows * FRAME_SAMPLES + FRAME_SAMPLES // 2
EXCITATION = 2
"""Which of the indices known before a sample is that of the last excitation."""
QUIET = 3e-4
"""10 in int16 units: an excitation near zero comes in steps of 6."""
BANDS = 1.0
QUIET_BAND = 1.0
"""The band energy that such noise has about."""


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
        """Raises ``ValueError``: too little is said for its bands to be measured, or a linear prediction of its own."""
        if self.rows < 3:
            raise ValueError(f"expected at least 3 rows, found {self.rows}")
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
    depend = again(voice, spoken, by_bunch(voice, voice.told(features, condition)), moves)
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
    first = KNOWN_SAMPLES // SUBFRAME_SAMPLES
    steps = jax.tree.map(lambda x: jnp.repeat(x, SUBFRAMES, axis=0)[first:], told)
    uniforms = jax.random.uniform(key, (len(steps.lag), len(pcm), SUBFRAME_SAMPLES, sampling.NUM_BITS))
    _, said = jax.lax.scan(lambda state, x: voice.speak(state, *x), start, (steps, uniforms))
    signal = jnp.concatenate([preemphasize(INT16_SCALE * pcm)[0], strung(said)], axis=-1)
    indices, excitation = voice.observe(linear_prediction(voice, features, condition), features, signal)
    drawn = jnp.concatenate([indices[EXCITATION, KNOWN_SAMPLES + 1 :], excitation[None, :, -1]])
    drawn = drawn.reshape(-1, voice.tables.bunch, len(pcm))
    return Spoken(start, by_bunch(voice, told), said / INT16_SCALE, indices, drawn)


def by_bunch(voice: LPCNetVoice, told: Told) -> Told:
    """What rows tell each bunch that is said freely."""
    bunch = voice.tables.bunch
    return jax.tree.map(lambda x: jnp.repeat(x, FRAME_SAMPLES // bunch, axis=0)[KNOWN_SAMPLES // bunch :], told)


def corrected(teacher: FARGAN, batch: dict[str, Array], said: Float[Array, "steps batch 40"]) -> Aim:
    """What the teacher would say in place of each step, all steps before being said."""
    truth, state, condition, periods = beginning(teacher, batch)
    heard = jnp.concatenate([truth[:, :FORCED_SAMPLES], strung(said)], axis=-1)
    xs = by_subframe(condition, periods, heard)
    _, better = jax.lax.scan(teacher.subframe.step, state, xs)
    gain = jnp.exp(teacher.subframe.gain(xs.condition[FORCED_SUBFRAMES:]))
    return Aim(better[FORCED_SUBFRAMES:], gain, truth[:, FORCED_SAMPLES:])


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
    start, tables = spoken.start, voice.tables
    nodes = sampling.path(spoken.drawn)[0]

    def say_bunch(carry, x):
        told, drawn, nodes, within, extra = x
        h_a, h_b, signal, before, read = slopes.fading(carry)
        said, excitations, moves = [], [], []
        for place in range(tables.bunch):
            prediction = (told.taps * signal).sum(axis=-1)
            excitation = excitations[-1] if excitations else before[:, -1]
            values = [slopes.quantize(signal[:, -1]), slopes.quantize(prediction), excitation]
            if tables.long_term:
                then = before.shape[-1] + place - told.lag
                values.append(jnp.take_along_axis(before, then[:, None], axis=-1)[:, 0])
            values = jnp.stack(values)
            read = jnp.concatenate([read, values])
            if place == 0:
                gates = slopes.look_up_whole(tables.gru_a.reshape(-1, *tables.gru_a.shape[2:]), read)
                h_a = voice.gru_a.advance(h_a, told.gates_a + gates) + extra.h_a
                from_a, read = told.gates_b + voice.gru_b.project(h_a), read[:0]
            gates = 0.0 if tables.gru_b is None else slopes.look_up_whole(tables.gru_b[place], values)
            h_b = voice.gru_b.advance(h_b, from_a + gates) + extra.h_b[place]
            logits = voice.output.at(h_b, nodes[place]) + extra.logits[place]
            excitations.append(slopes.drawn(drawn[place], logits, within[place], voice.confinement))
            said.append(prediction + mulaw.decode(excitations[-1]))
            signal = jnp.concatenate([signal[:, 1:], said[-1][:, None]], axis=-1)
            moves.append((h_b, logits))
        before = jnp.concatenate([before, jnp.stack(excitations, axis=-1)], axis=-1)[:, -before.shape[-1] :]
        moves = Moves(h_a, *map(jnp.stack, zip(*moves, strict=True)))
        return (h_a, h_b, signal, before, read), (jnp.stack(said), moves)

    last = start.signal[:, -LPC_ORDER:]
    first = (start.h_a, start.h_b, last, 1.0 * start.excitation, 1.0 * jnp.moveaxis(start.read, -1, 0))
    _, (said, moves) = jax.lax.scan(say_bunch, first, (spoken.told, spoken.drawn, nodes, within, extra))
    said = said.reshape(-1, SUBFRAME_SAMPLES, said.shape[-1])
    return jnp.moveaxis(said, 1, -1) / INT16_SCALE, moves


def again(voice: LPCNetVoice, spoken: Spoken, told: Told, moves: Moves) -> Moves:
    """Each move once more, from those before it, which stay: how they depend on the weights."""
    bunches, bunch, batch = spoken.drawn.shape
    tables = voice.tables
    before_a = jnp.concatenate([spoken.start.h_a[None], moves.h_a[:-1]])
    read = read_by_bunch(spoken.indices, bunch)[:, KNOWN_SAMPLES // bunch :]
    h_a = voice.gru_a.advance(before_a, told.gates_a + tables.of_bunch(read))
    all_b = moves.h_b.reshape(bunches * bunch, batch, -1)
    before_b = jnp.concatenate([spoken.start.h_b[None], all_b[:-1]]).reshape(moves.h_b.shape)
    indices = spoken.indices[:, KNOWN_SAMPLES:].reshape(-1, bunches, bunch, batch)
    from_a = told.gates_b + voice.gru_b.project(moves.h_a)
    gates = jnp.stack([from_a + tables.of_sample(place, indices[:, :, place]) for place in range(bunch)], axis=1)
    logits = jnp.take_along_axis(voice.output(moves.h_b), sampling.path(spoken.drawn)[0], axis=-1)
    return Moves(h_a, voice.gru_b.advance(before_b, gates), logits)


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
class FreeRunTask(Task):
    """``jdred.training.Task`` of an LPCNet that is corrected; made to start from trained weights."""

    train: Prepared
    validation: Prepared
    settings: FreeRunSettings = field(default_factory=FreeRunSettings)
    name: str = "freerun"

    def init(self, seed: int) -> LPCNet:
        return LPCNet(self.settings.model, rngs=nnx.Rngs(seed))

    def config(self) -> dict[str, Any]:
        settings = asdict(self.settings)
        return {"kind": "lpcnet", "task": self.name, "model": settings["model"], "settings": settings}

    @cached_property
    def teacher(self) -> FARGAN:
        """The one that corrects."""
        return load_fargan(self.settings.teacher)

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        rate = steady(self.settings.learning_rate, self.settings.warmup_steps, self.settings.decay, total_steps)
        return clipped(rate, clip=0.3, b1=0.8, b2=0.95, muon=self.settings.muon, tables=TABLES)

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self._draw(self.train, rng)

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
        crops = corpus.crops(rng, self.settings.batch, frames, past=PAST_SAMPLES)
        return {"features": crops["features"], "pcm": crops["pcm"]}


@partial(jax.jit, static_argnums=0)
def _heard(quiet_floor: float, model: LPCNet, teacher: FARGAN, batch: dict[str, Array], key: Key[Array, ""]):
    return correct(model, teacher, batch, key, partial(resemblance, quiet_floor))[:2]
