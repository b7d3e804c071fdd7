"""Training LPCNet through its own output against discriminators: the third stage, after ``freerun``.

The judge of ``freerun`` with those of ``adversarial`` beside it.
"""

from dataclasses import dataclass, field
from functools import partial

import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jdred.training.adversarial import (
    AdversarialSettings,
    Adversaries,
    deceive,
    discriminate,
    optimizer_of_sides,
)
from jdred.training.freerun import Aim, FreeRunSettings, FreeRunTask, correct, resemblance
from jdred.training.lpcnet import TABLES
from jdred.training.optimizers import clipped
from jdred.training.student import strung
from jdred.vocoder.fargan import FARGAN
from jdred.vocoder.lpcnet import LPCNet


@dataclass(frozen=True)
class FinishSettings(FreeRunSettings):
    rows: int = 12
    learning_rate: float = 3e-4
    discriminator_rate: float = 4e-3
    discriminator_warmup: int = 100
    discriminator_width: int = AdversarialSettings.discriminator_width
    resemblance: float = 5.0
    """Weight of the loss of ``freerun`` ..."""
    matching: float = AdversarialSettings.matching
    """... and of feature matching, beside that of being taken for speech."""

    def __post_init__(self):
        """Raises ``ValueError``, also where there is no patch of the longest windows in what is said."""
        super().__post_init__()
        if self.rows < 7:
            raise ValueError(f"expected at least 7 rows, found {self.rows}")


def objective(settings: FinishSettings, sides: Adversaries, teacher: FARGAN, batch: dict[str, Array], key: Array):
    """The losses of both sides, each with a gradient for its own parameters only."""

    def judge(aim: Aim, said: Float[Array, "steps batch 40"]):
        loss, figures = resemblance(settings.quiet_floor, aim, said)
        deception, seen = deceive(sides.discriminators, settings.matching, aim.truth, strung(said))
        return settings.resemblance * loss + deception, {**figures, **seen}

    vocoder, figures, aim, said = correct(sides.vocoder, teacher, batch, key, judge)
    discriminator = discriminate(sides.discriminators, aim.truth, strung(said)).discriminator
    return vocoder + discriminator, figures


@dataclass(frozen=True)
class FinishTask(FreeRunTask):
    """``jdred.training.Task`` of an LPCNet and its discriminators; made to start from trained weights."""

    settings: FinishSettings = field(default_factory=FinishSettings)
    name: str = "finish"
    part: str = "vocoder"

    def init(self, seed: int) -> Adversaries:
        rngs = nnx.Rngs(seed)
        return Adversaries(LPCNet(self.settings.model, rngs=rngs), self.settings.discriminator_width, rngs=rngs)

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        step = partial(clipped, clip=1.5, muon=self.settings.muon, tables=TABLES)
        return optimizer_of_sides(self.settings, step, total_steps)

    def loss(self, parameters: Adversaries, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]):
        return objective(self.settings, parameters, self.teacher, batch, key)

    def validate(self, parameters: LPCNet) -> dict[str, float]:
        """The parts of ``freerun``'s loss. They do not select: what discriminators are for is not seen in them."""
        figures = super().validate(parameters)
        return {name: value for name, value in figures.items() if name != "loss"}
