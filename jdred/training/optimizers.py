"""How weights step: AdamW, or Muon on the matrices; gradients are clipped first."""

from typing import Any

import optax

MUON_RMS = 0.2
"""Of a step of Muon over the rate: the rate then means what it means to Adam."""


def clipped(
    rate: optax.ScalarOrSchedule,
    *,
    clip: float,
    b1: float,
    b2: float,
    muon: bool,
    weight_decay: float = 0.0,
    tables: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """The optimiser of a task whose parameters are named arrays.

    Args:
      clip: largest norm of the whole gradient.
      muon: matrices, and stacks of them, take orthogonal steps (Muon, Jordan et al. 2024) in place of AdamW's.
      weight_decay: of AdamW; Muon has none.
      tables: last parts of the names of arrays that are looked up in, and so are no matrices to Muon.
    """

    def matrices(arrays: dict[str, Any]) -> dict[str, Any]:
        """By name: the last two axes of each matrix; None for what Adam steps."""

        def is_one(name: str) -> bool:
            # optax asks again with placeholders in place of what is Adam's.
            return getattr(arrays[name], "ndim", 0) >= 2 and name.split("/")[-1] not in tables

        return {name: optax.contrib.MuonDimensionNumbers(-2, -1) if is_one(name) else None for name in arrays}

    if muon:
        steps = optax.contrib.muon(
            rate, consistent_rms=MUON_RMS, adam_b1=b1, adam_b2=b2, muon_weight_dimension_numbers=matrices
        )
    else:
        steps = optax.adamw(rate, b1=b1, b2=b2, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip), steps)
