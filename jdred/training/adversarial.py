"""Training FARGAN against discriminators: the second stage, after which it sounds like speech, not only resembles it.

Discriminators learn to tell speech from what the vocoder says, each by patches of its log spectrum at one resolution;
the vocoder learns to be taken for speech (least squares, Mao et al. 2017), to leave the same traces in their hidden
layers (feature matching, Larsen et al. 2016), and not to stray from the true spectra.
Patches are matrix products, which a CPU is quick at; convolutions over whole spectra cost it many times as much.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jdred.layers import Dense
from jdred.training.fargan import TRUE_SAMPLES, FARGANTask, SpeakingSettings, roots, speak, spectral_error
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
class AdversarialSettings(SpeakingSettings):
    batch: int = 16
    rows: int = 32
    learning_rate: float = 1e-4
    discriminator_rate: float = 1e-3
    discriminator_warmup: int = 200
    """Steps of the discriminators before the vocoder's first one."""
    discriminator_width: int = 128
    spectral: float = 5.0
    """Weight of the spectral error ..."""
    matching: float = 2.0
    """... and of feature matching, beside that of being taken for speech."""


class Discriminator(nnx.Module):
    """Scores patches of a log spectrum: 1 for speech, 0 for what a vocoder says."""

    def __init__(self, window: int, width: int, *, rngs: nnx.Rngs):
        self.window = window
        self.first = Dense(PATCH_FRAMES * PATCH_BINS, width, rngs=rngs, use_bias=False)
        self.by_frequency = nnx.Param(jnp.zeros((window // PATCH_BINS - 1, width)))
        self.second = Dense(width, width, rngs=rngs)
        self.score = Dense(width, 1, rngs=rngs)

    def __call__(self, signal: Float[Array, "batch samples"]) -> tuple[Float[Array, "batch frames patches _"], ...]:
        """Two hidden layers and the scores."""
        spectrum = jnp.log(roots(signal, self.window) + QUIET)
        first = jax.nn.leaky_relu(self.first(patches(spectrum)) + self.by_frequency[...])
        second = jax.nn.leaky_relu(self.second(first))
        return first, second, self.score(second)


def patches(spectrum: Float[Array, "batch frames bins"]) -> Float[Array, "batch later patches patch"]:
    """All patches of a spectrum, half of one apart in frequency, a frame apart in time; the bin of 0 Hz is left out."""
    step = PATCH_BINS // 2
    blocks = spectrum[..., 1:].reshape(*spectrum.shape[:-1], -1, step)
    wide = jnp.concatenate([blocks[..., :-1, :], blocks[..., 1:, :]], axis=-1)
    later = wide.shape[1] - PATCH_FRAMES + 1
    return jnp.concatenate([wide[:, start : start + later] for start in range(PATCH_FRAMES)], axis=-1)


class Adversaries(nnx.Module):
    """The parameters of the task: a vocoder and its discriminators."""

    def __init__(self, vocoder: nnx.Module, width: int, *, rngs: nnx.Rngs):
        self.vocoder = vocoder
        self.discriminators = nnx.List([Discriminator(window, width, rngs=rngs) for window in WINDOWS])


class Losses(NamedTuple):
    """Means over the discriminators."""

    discriminator: Float[Array, ""]
    """Squared error of the scores."""
    adversarial: Float[Array, ""]
    """Squared distance of what is said from being taken for speech."""
    matching: Float[Array, ""]
    """Difference of the hidden layers, relative to what speech makes there."""


def discriminate(
    discriminators: nnx.List, truth: Float[Array, "batch samples"], said: Float[Array, "batch samples"]
) -> Losses:
    """Let all discriminators look at speech and at what was said in its place."""

    def one(discriminator: Discriminator) -> Losses:
        *true, real = discriminator(truth)
        *own, fake = discriminator(said)
        apart = [jnp.mean(jnp.abs(a - b)) / (jnp.mean(jnp.abs(a)) + 1e-6) for a, b in zip(true, own, strict=True)]
        adversarial = jnp.mean((1 - fake) ** 2)
        return Losses(jnp.mean((1 - real) ** 2) + jnp.mean(fake**2), adversarial, sum(apart) / len(apart))

    return jax.tree.map(lambda *losses: sum(losses) / len(losses), *map(one, discriminators))


def deceive(
    discriminators: nnx.List, matching: float, truth: Float[Array, "batch samples"], said: Float[Array, "batch samples"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss of a vocoder that wants to be taken for speech, none of the discriminators', and ``Losses``.

    Args:
      matching: weight of feature matching.
    """
    heard = discriminate(jax.lax.stop_gradient(discriminators), truth, said)
    return heard.adversarial + matching * heard.matching, heard._asdict()


def objective(settings: AdversarialSettings, sides: Adversaries, batch: dict[str, Array]):
    """The losses of both sides, each with a gradient for its own parameters only."""
    truth, said = speak(sides.vocoder, batch)
    spectral = spectral_error(truth, said, settings.quiet_floor)
    truth, said = truth[:, TRUE_SAMPLES:], said[:, TRUE_SAMPLES:]  # before, there is nothing to tell apart
    deception, figures = deceive(sides.discriminators, settings.matching, truth, said)
    discriminator = discriminate(sides.discriminators, truth, jax.lax.stop_gradient(said)).discriminator
    return settings.spectral * spectral + deception + discriminator, {"spectral": spectral, **figures}


def optimizer_of_sides(
    settings: Any, step: Callable[..., optax.GradientTransformation], total_steps: int
) -> optax.GradientTransformation:
    """Discriminators have a rate of their own, and ``discriminator_warmup`` steps before the vocoder's first one.

    Args:
      settings: those of the task, with the fields of ``AdversarialSettings`` that say so.
      step: ``optimizers.clipped`` for the vocoder, but for the rate and the momenta.
    """
    alone = settings.discriminator_warmup
    spoken = steady(settings.learning_rate, settings.warmup_steps, settings.decay, max(1, total_steps - alone))

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.where(step < alone, 0.0, spoken(step - alone))

    momenta = {"b1": 0.8, "b2": 0.99}
    sides = {
        "vocoder": step(rate, **momenta),
        "discriminators": clipped(settings.discriminator_rate, clip=1.0, muon=settings.muon, **momenta),
    }
    return optax.partition(sides, lambda arrays: {name: name.split("/")[0] for name in arrays})


@dataclass(frozen=True)
class AdversarialTask(FARGANTask):
    """``jdred.training.Task`` of a FARGAN and its discriminators; made to start from trained weights."""

    settings: AdversarialSettings = field(default_factory=AdversarialSettings)
    name: str = "adversarial"
    part: str = "vocoder"

    def init(self, seed: int) -> Adversaries:
        rngs = nnx.Rngs(seed)
        return Adversaries(FARGAN(self.settings.model, rngs=rngs), self.settings.discriminator_width, rngs=rngs)

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        settings = self.settings
        step = partial(clipped, clip=1.0, muon=settings.muon, weight_decay=settings.weight_decay)
        return optimizer_of_sides(settings, step, total_steps)

    def loss(self, parameters: Adversaries, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        return objective(self.settings, parameters, batch)

    def validate(self, parameters: FARGAN) -> dict[str, float]:
        """``spectral``, which is to stay low. It does not select: what discriminators are for is not seen in it."""
        return {"spectral": self.heard(parameters)["spectral"]}
