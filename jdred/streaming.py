"""The one contract of everything that runs over time: a pure step, a state that is passed in and returned.

Offline is ``scan(step)``. A part may have a faster parallel twin under the name ``scan``; the contract test
(``tests/test_streaming_contract.py``) ties the two, gradients included. Steps work on the last axis, so leading batch
axes and ``jax.vmap`` are both fine; time is always the first axis of a sequence.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

State = TypeVar("State")


class Streaming(Protocol[State]):
    """What every streaming part offers. ``step`` is exactly a ``lax.scan`` body."""

    def init_state(self) -> State:
        """The state of one stream before its first input."""

    def step(self, state: State, x: PyTree) -> tuple[State, PyTree]:
        """One input in, one output out. Pure."""


def scan(part: Streaming[State], state: State, xs: PyTree) -> tuple[State, PyTree]:
    """Run a part over a whole sequence: its parallel twin where it has one, else ``lax.scan`` of its step.

    Args:
      part: anything with ``init_state`` and ``step``.
      state: where to start; the returned state goes on from the last input.
      xs: inputs, time first.
    Returns:
      ``(state, ys)``, time first.
    """
    twin = getattr(part, "scan", None)
    return twin(state, xs) if twin is not None else jax.lax.scan(part.step, state, xs)


def hold(active: Bool[Array, "..."], new: PyTree, old: PyTree) -> PyTree:
    """``new`` where a stream is active, ``old`` where it is not: what a lost packet is to a state.

    ``active`` has the batch axes of the leaves (none for one stream).
    """

    def pick(n: Array, o: Array) -> Array:
        return jnp.where(jnp.reshape(active, active.shape + (1,) * (jnp.ndim(n) - active.ndim)), n, o)

    return jax.tree.map(pick, new, old)


def batch_state(state: State, shape: tuple[int, ...]) -> State:
    """Repeat one stream's state over leading batch axes of the given shape."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, shape + jnp.shape(a)), state)


def bind(function: Callable, parameters: PyTree) -> Callable:
    """``function(parameters, ...)`` compiled, with the parameters taken apart once and not at every call.

    For live use: walking through the tree of a network at each call costs more than many a step. Compiled once for
    each function and structure, whoever binds.
    """
    leaves, structure = jax.tree.flatten(parameters)
    return partial(_compiled(function, structure), leaves)


@lru_cache(maxsize=64)
def _compiled(function: Callable, structure: Any) -> Callable:
    return jax.jit(lambda leaves, *rest: function(jax.tree.unflatten(structure, leaves), *rest))
