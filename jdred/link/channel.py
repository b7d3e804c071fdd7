"""What a network loses. A trace has one entry per packet; lost = 1.

``bernoulli``, ``gilbert_elliott`` and ``protect`` are pure JAX: they go under ``jit`` and ``vmap``, with loss and burst
length as numbers or as arrays. ``draw_trace`` is the same for people who want a checked numpy array from a seed.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, ScalarLike, Shaped, UInt8

PACKET_MS = 20


class TraceError(ValueError):
    """A trace file that cannot be read as one."""


def bernoulli(key: Key[Array, ""], packets: int, loss: ScalarLike) -> Bool[Array, "packets"]:
    """Independent losses with probability ``loss``, 0 .. 1. The key is consumed."""
    return jax.random.uniform(key, (packets,)) < loss


def gilbert_elliott(
    key: Key[Array, ""],
    packets: int,
    loss: ScalarLike,
    mean_burst_ms: ScalarLike,
    max_burst_ms: ScalarLike | None = None,
    packet_ms: ScalarLike = PACKET_MS,
) -> Bool[Array, "packets"]:
    """Losses in bursts: a chain of two states, good and lost, started in its stationary distribution.

    With a mean burst of b packets the chain leaves a burst with probability 1 / b and enters one with
    loss / (1 - loss) / b (E. N. Gilbert, Bell System Technical Journal 39, 1960, with loss certain in the bad state).

    Args:
      key: consumed.
      loss: fraction of packets lost in the long run, 0 <= loss < 1 and loss / (1 - loss) <= b.
      mean_burst_ms: mean length of a burst, at least ``packet_ms``.
      max_burst_ms: a burst that has lasted so long ends; rounded down to whole packets, at least one. It lowers both
        the loss and the mean burst that come out.
    """
    burst = mean_burst_ms / packet_ms
    enter, leave = loss / (1 - loss) / burst, 1 / burst
    # The state before the first packet counts too: a run reaches packets + 1.
    limit = packets + 1 if max_burst_ms is None else jnp.maximum(jnp.floor(max_burst_ms / packet_ms), 1)
    uniforms = jax.random.uniform(key, (packets + 1,))

    def step(run: Int[Array, ""], uniform: Float[Array, ""]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
        lost = jnp.where(run > 0, (uniform >= leave) & (run < limit), uniform < enter)
        return jnp.where(lost, run + 1, 0), lost

    start = (uniforms[0] < loss).astype(jnp.int32)
    return jax.lax.scan(step, start, uniforms[1:])[1]


def protect(trace: Bool[Array, "packets"], first: int = 0, last: int = 0) -> Bool[Array, "packets"]:
    """The trace with nothing lost among its ``first`` and its ``last`` packets."""
    index = jnp.arange(trace.shape[-1])
    return trace & (index >= first) & (index < trace.shape[-1] - last)


# Compiled once for each number of packets, whatever the loss.
_bernoulli = jax.jit(bernoulli, static_argnums=1)
_gilbert_elliott = jax.jit(gilbert_elliott, static_argnums=1)


def draw_trace(
    packets: int,
    loss: ScalarLike,
    mean_burst_ms: ScalarLike | None = None,
    max_burst_ms: ScalarLike | None = None,
    packet_ms: ScalarLike = PACKET_MS,
    seed: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> UInt8[np.ndarray, "packets"]:
    """A trace from a seed: in bursts where ``mean_burst_ms`` is given (``gilbert_elliott``), else independent.

    Raises:
      ValueError: an argument out of the range that the models state.
    """
    if not 0 <= loss <= 1:
        raise ValueError(f"expected a loss of 0 .. 1, got {loss}")
    if packets < 1 or not packet_ms > 0 or min(protect_first, protect_last) < 0:
        raise ValueError(
            f"expected packets >= 1, packet_ms > 0 and nothing negative to protect, got packets {packets}, "
            f"packet_ms {packet_ms}, protect {protect_first} and {protect_last}"
        )
    key = jax.random.key(seed)
    if mean_burst_ms is None:
        if max_burst_ms is not None:
            raise ValueError("max_burst_ms needs mean_burst_ms")
        trace = _bernoulli(key, packets, loss)
    else:
        _check_bursts(loss, mean_burst_ms, max_burst_ms, packet_ms)
        trace = _gilbert_elliott(key, packets, loss, mean_burst_ms, max_burst_ms, packet_ms)
    return np.asarray(protect(trace, protect_first, protect_last), np.uint8)


def burst_lengths(trace: Shaped[np.ndarray | Array, "packets"]) -> Int[np.ndarray, "bursts"]:
    """Lengths of the runs of lost packets, in packets, in order."""
    edges = np.diff(np.asarray(trace, bool).astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges < 0) - np.flatnonzero(edges > 0)


def realised_loss(trace: Shaped[np.ndarray | Array, "packets"]) -> float:
    """Fraction of packets lost, 0 .. 1; 0 for an empty trace."""
    trace = np.asarray(trace, bool)
    return float(trace.mean()) if trace.size else 0.0


def read_trace(path: str | Path) -> UInt8[np.ndarray, "packets"]:
    """A trace from a text file of the digits 0 and 1 (1 = lost), one a line or run together; white space is skipped.

    Raises:
      TraceError: no such file, nothing in it, or another character.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise TraceError(f"cannot read the trace {path}: {error.strerror}") from error
    for number, line in enumerate(text.splitlines(), 1):
        other = line.strip().translate(None, b"01 \t")
        if other:
            raise TraceError(f"{path}, line {number}: expected the digits 0 and 1, found {chr(other[0])!r}")
    trace = np.frombuffer(b"".join(text.split()), np.uint8) - ord("0")
    if not trace.size:
        raise TraceError(f"the trace {path} is empty")
    return trace


def write_trace(path: str | Path, trace: Shaped[np.ndarray | Array, "packets"]) -> None:
    """Write a trace as text, one digit a line."""
    Path(path).write_text("".join(f"{int(lost)}\n" for lost in np.asarray(trace, bool)))


def _check_bursts(
    loss: ScalarLike, mean_burst_ms: ScalarLike, max_burst_ms: ScalarLike | None, packet_ms: ScalarLike
) -> None:
    if not mean_burst_ms >= packet_ms:
        raise ValueError(f"a burst has at least one packet of {packet_ms} ms, got a mean of {mean_burst_ms} ms")
    if max_burst_ms is not None and not max_burst_ms >= packet_ms:
        raise ValueError(f"a burst has at least one packet of {packet_ms} ms, got a maximum of {max_burst_ms} ms")
    if loss == 1 or loss / (1 - loss) > mean_burst_ms / packet_ms:
        raise ValueError(f"a loss of {loss} cannot come in bursts of only {mean_burst_ms} ms on average")
