"""Training FARGAN against critics: the second stage, which makes what it says sound like speech, not only resemble it.

The critics learn to tell speech from what the vocoder says, each by patches of its log spectrum at one resolution; the
vocoder learns to be taken for speech (least squares, Mao et al. 2017), to leave the same traces inside the critics
(feature matching, Larsen et al. 2016), and not to stray from the true spectra.
Patches are matrix products, which a CPU is quick at; convolutions over whole spectra cost it many times as much.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jdred.layers import Dense
from jdred.training.fargan import FARGANSettings, FARGANTask, load_fargan, roots, speak, spectral_error
from jdred.training.optimizers import clipped
from jdred.training.schedule import steady
from jdred.vocoder.fargan import FARGAN

WINDOWS = (1024, 512, 256, 128)
PATCH_FRAMES = 5
PATCH_BINS = 32
"""Half of them are the next patch's as well."""
QUIET = 0.05
"""Added to roots of magnitudes before their logarithm: what is softer than 16 bits can tell is all one."""


@dataclass(frozen=True)
class AdversarialSettings(FARGANSettings):
    vocoder: str = ""
    """Weights of the FARGAN to start from: a shipped name or a path; its sizes hold."""
    batch: int = 16
    rows: int = 32
    learning_rate: float = 1e-4
    critics_rate: float = 2e-4
    critics_alone: int = 200
    """Steps before the vocoder's first one."""
    critics_width: int = 128
    spectral: float = 5.0
    """Weight of the spectral error ..."""
    matching: float = 2.0
    """... and of feature matching, beside that of being taken for speech."""


class Critic(nnx.Module):
    """Scores patches of a log spectrum: 1 for speech, 0 for imitation."""

    def __init__(self, window: int, width: int, *, rngs: nnx.Rngs):
        self.window = window
        self.first = Dense(PATCH_FRAMES * PATCH_BINS, width, rngs=rngs)
        self.second = Dense(width, width, rngs=rngs)
        self.score = Dense(width, 1, rngs=rngs)
        self.heights = nnx.Param(jnp.zeros((window // PATCH_BINS - 1, width)))

    def __call__(self, signal: Float[Array, "batch samples"]) -> tuple[Float[Array, "batch frames patches _"], ...]:
        """Two hidden layers and the scores."""
        spectrum = jnp.log(roots(signal, self.window) + QUIET)
        first = jax.nn.leaky_relu(self.first(patches(spectrum)) + self.heights[...])
        second = jax.nn.leaky_relu(self.second(first))
        return first, second, self.score(second)


def patches(spectrum: Float[Array, "batch frames bins"]) -> Float[Array, "batch later patches patch"]:
    """All patches of a spectrum, half of one apart in frequency, a frame apart in time; the bin of 0 Hz is left out."""
    step = PATCH_BINS // 2
    blocks = spectrum[..., 1:].reshape(*spectrum.shape[:-1], -1, step)
    wide = jnp.concatenate([blocks[..., :-1, :], blocks[..., 1:, :]], axis=-1)
    later = wide.shape[1] - PATCH_FRAMES + 1
    return jnp.concatenate([wide[:, start : start + later] for start in range(PATCH_FRAMES)], axis=-1)


class Duel(nnx.Module):
    """The parameters of the task: a vocoder and its critics."""

    def __init__(self, vocoder: FARGAN, width: int, *, rngs: nnx.Rngs):
        self.vocoder = vocoder
        self.critics = nnx.List([Critic(window, width, rngs=rngs) for window in WINDOWS])


class Verdict(NamedTuple):
    """What critics find in one signal against the other; means over the critics."""

    critics: Float[Array, ""]
    """Squared error of the scores."""
    doubt: Float[Array, ""]
    """How far what is said is from being taken for speech: 0 where it is."""
    matching: Float[Array, ""]
    """Difference of the hidden layers, relative to what speech makes there."""


def judge(critics: nnx.List, truth: Float[Array, "batch samples"], said: Float[Array, "batch samples"]) -> Verdict:
    """Let all critics look at both."""

    def one(critic: Critic) -> Verdict:
        *true, real = critic(truth)
        *own, fake = critic(said)
        apart = [jnp.mean(jnp.abs(a - b)) / (jnp.mean(jnp.abs(a)) + 1e-6) for a, b in zip(true, own, strict=True)]
        doubt = jnp.mean((1 - fake) ** 2)
        return Verdict(jnp.mean((1 - real) ** 2) + jnp.mean(fake**2), doubt, sum(apart) / len(apart))

    return jax.tree.map(lambda *figures: sum(figures) / len(figures), *map(one, critics))


def objective(settings: AdversarialSettings, duel: Duel, batch: dict[str, Array]):
    """The losses of both sides, each with a gradient for its own parameters only."""
    truth, said = speak(duel.vocoder, batch)
    spectral = spectral_error(truth, said, settings.quiet_floor)
    heard = judge(jax.lax.stop_gradient(duel.critics), truth, said)
    vocoders = settings.spectral * spectral + heard.doubt + settings.matching * heard.matching
    critics = judge(duel.critics, truth, jax.lax.stop_gradient(said)).critics
    figures = {"spectral": spectral, "critics": critics, "doubt": heard.doubt, "matching": heard.matching}
    return vocoders + critics, figures


@dataclass(frozen=True)
class AdversarialTask(FARGANTask):
    """``jdred.training.Task`` of a FARGAN and its critics."""

    settings: AdversarialSettings = field(default_factory=AdversarialSettings)
    name: str = "adversarial"

    @cached_property
    def beginner(self) -> FARGAN:
        """The vocoder as it starts."""
        return load_fargan(self.settings.vocoder)

    def init(self, seed: int) -> Duel:
        # A copy: the first step of a run gives its parameters away.
        vocoder = jax.tree.map(jnp.copy, self.beginner)
        return Duel(vocoder, self.settings.critics_width, rngs=nnx.Rngs(seed))

    def shipped(self, parameters: Duel) -> FARGAN:
        return parameters.vocoder

    def config(self) -> dict[str, Any]:
        model = asdict(self.beginner.config)
        settings = asdict(self.settings) | {"model": model}
        return {"kind": "fargan", "task": self.name, "model": model, "settings": settings}

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        settings = self.settings

        def vocoders(step: Int[Array, ""]) -> Float[Array, ""]:
            rate = steady(settings.learning_rate, settings.warmup_steps, settings.decay, total_steps)
            return jnp.where(step < settings.critics_alone, 0.0, rate(step - settings.critics_alone))

        sides = {
            "vocoder": clipped(vocoders, clip=1.0, b1=0.8, b2=0.99, muon=settings.muon),
            "critics": clipped(settings.critics_rate, clip=1.0, b1=0.8, b2=0.99, muon=False),
        }
        return optax.partition(sides, lambda arrays: {name: name.split("/")[0] for name in arrays})

    def loss(self, parameters: Duel, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        return objective(self.settings, parameters, batch)

    def validate(self, parameters: FARGAN) -> dict[str, float]:
        """The spectral error, which is to stay low; it does not select, as what critics are for is not seen in it."""
        return {"spectral": super().validate(parameters)["spectral"]}
