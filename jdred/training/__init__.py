"""Training: never imported by inference code.

Every model is a ``Task``; ``loop.fit`` trains any of them.
"""

from typing import Any, Protocol

import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree


class Task(Protocol):
    """One model to train: where its batches come from and what its loss is."""

    name: str
    part: str = ""
    """The attribute of the parameters that is the model, which alone is validated and exported; empty: they all are."""

    def init(self, seed: int) -> PyTree:
        """Fresh parameters."""

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        """The optimiser with its schedule."""

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One batch; every array has the batch axis first (it is sharded over the devices)."""

    def loss(
        self, parameters: PyTree, batch: dict[str, Array], key: Key[Array, ""], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean loss of a batch and the figures to log."""

    def validate(self, parameters: PyTree) -> dict[str, float]:
        """Figures of the model on the validation split, the same every time.

        The one named ``loss`` selects checkpoints; without one the newest is the best.
        """

    def config(self) -> dict[str, Any]:
        """What belongs into the checkpoint beside the arrays (JSON)."""
