"""Learning-rate schedules: one of fixed length, one that can be prolonged."""

import jax.numpy as jnp
import optax
from jaxtyping import Array

TAIL = 0.2
"""Share of the steps over which the rate falls at the end, to a tenth."""


def cosine(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Warm-up from a hundredth of the peak, then a cosine down to it; its end is fixed from the start."""
    warmup, low = min(warmup_steps, max(1, total_steps // 10)), 0.01 * peak
    return optax.warmup_cosine_decay_schedule(low, peak, warmup, max(total_steps, warmup + 1), low)


def steady(peak: float, warmup_steps: int, decay: float, total_steps: int) -> optax.Schedule:
    """Warm-up, then ``peak / (1 + decay * step)``, and a linear tail: a function of the step alone.

    A run can be prolonged from any checkpoint before its tail as if ``total_steps`` had always been larger.
    """

    def rate(step: Array) -> Array:
        warm = jnp.minimum(1.0, (step + 1) / warmup_steps)
        tail = jnp.clip((total_steps - step) / (TAIL * total_steps), 0.1, 1.0)
        return peak * warm * tail / (1 + decay * step)

    return rate
