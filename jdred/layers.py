"""Layers as plain pytrees with explicit state: dense, GRU, causal convolution, GLU.

All work on the last axis, so any batch axes may stand before it. Layers with memory have ``init_state``, ``step`` and
the faster ``scan`` over a leading time axis. ``reset`` lets ``scan`` start afresh inside a sequence, which is how
random cuts train at a fixed shape.

A layer whose ``rounded`` is set reads its inputs as libopus's 8-bit products do (set by ``libopus.networks.rounded``).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PyTree

_kernel_init = nnx.initializers.glorot_uniform()
_orthogonal = nnx.initializers.orthogonal()


def round_activations(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """In steps of 1/127 from -1 to 128/127, halves to even, as a byte holds it; gradient of the identity."""
    steps = jnp.clip(jnp.round(127 * x), -127, 128) / 127
    return x + jax.lax.stop_gradient(steps - x)


class Layer(nnx.Module):
    """What weighs its inputs."""

    rounded = False
    """Inputs count in steps of 1/127."""
    packed = None
    """Kernels by name as ``Packed``, for inputs without batch axes."""

    def inputs(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """``x`` as it is weighed."""
        return round_activations(x) if self.rounded else x

    def times(self, x: Float[Array, "... n_in"]) -> Float[Array, "... n_out"]:
        """``x @ kernel``."""
        x = self.inputs(x)
        return x @ self.kernel[...] if self.packed is None or x.ndim > 1 else self.packed["kernel"].times(x)


class Dense(Layer):
    """``x @ kernel + bias``."""

    def __init__(self, n_in: int, n_out: int, *, rngs: nnx.Rngs, use_bias: bool = True):
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (n_in, n_out)))
        self.bias = nnx.Param(jnp.zeros(n_out)) if use_bias else None

    def __call__(self, x: Float[Array, "... n_in"]) -> Float[Array, "... n_out"]:
        y = self.times(x)
        return y if self.bias is None else y + self.bias[...]


class GLU(Layer):
    """Gated linear unit ``x * sigmoid(x @ kernel)``, square and without bias."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_orthogonal(rngs.params(), (width, width)))

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        return x * jax.nn.sigmoid(self.times(x))


def _gru_gates(inputs: Array, recurrent: Array) -> tuple[Array, Array, Array]:
    """Update gate, reset gate and candidate of ``gru_gates``."""
    width = inputs.shape[-1] // 3
    zr = jax.nn.sigmoid(inputs[..., : 2 * width] + recurrent[..., : 2 * width])
    z, r = zr[..., :width], zr[..., width:]
    return z, r, jnp.tanh(inputs[..., 2 * width :] + r * recurrent[..., 2 * width :])


def gru_gates(
    inputs: Float[Array, "... gates"], recurrent: Float[Array, "... gates"], h: Float[Array, "... width"]
) -> Float[Array, "... width"]:
    """One GRU update in the "reset after" form; gate order update, reset, candidate.

    Args:
      inputs: ``W x + b`` of the three gates.
      recurrent: ``U h + c`` of the three gates.
      h: the state.
    """
    z, _, n = _gru_gates(inputs, recurrent)
    return z * h + (1 - z) * n


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def gru_recurrence(
    inputs: Float[Array, "time ... gates"],
    recurrent: PyTree[Float[Array, "..."]],
    bias: Float[Array, "gates"],
    h: Float[Array, "... width"],
    product: Callable[[Array, PyTree], Array] = jnp.matmul,
) -> Float[Array, "time ... width"]:
    """The states of a GRU over time, from projected inputs and the state ``h`` before the first.

    ``product(h, recurrent)`` is the part of the gates from the state, linear in both.

    Equal to a scan of ``gru_gates``; only the backward pass is written by hand. It carries no more than the gradient
    of the state and gathers that of ``recurrent`` in one large product afterwards, instead of adding up a matrix at
    every step: 1.4 times as fast for widths of about 200.
    """

    def body(h, x):
        h = gru_gates(x, product(h, recurrent) + bias, h)
        return h, h

    return jax.lax.scan(body, h, inputs)[1]


def _gru_recurrence_forward(inputs, recurrent, bias, h, product):
    def body(h, x):
        state_part = product(h, recurrent) + bias
        z, r, n = _gru_gates(x, state_part)
        h = z * h + (1 - z) * n
        return h, (h, z, r, n, state_part[..., 2 * h.shape[-1] :])

    _, saved = jax.lax.scan(body, h, inputs)
    return saved[0], (recurrent, h, saved)


def _gru_recurrence_backward(product, residuals, d_states):
    recurrent, first, (states, z, r, n, candidate_part) = residuals
    before, width = jnp.concatenate([first[None], states[:-1]]), first.shape[-1]
    back = jax.linear_transpose(lambda h: product(h, recurrent), first)

    def body(d_h, x):
        d_state, h, z, r, n, candidate_part = x
        d_h = d_h + d_state
        d_n = d_h * (1 - z) * (1 - n * n)
        d_z = d_h * (h - n) * z * (1 - z)
        d_r = d_n * candidate_part * r * (1 - r)
        (d_before,) = back(jnp.concatenate([d_z, d_r, d_n * r], axis=-1))
        return d_h * z + d_before, jnp.concatenate([d_z, d_r, d_n], axis=-1)

    d_first, d_inputs = jax.lax.scan(
        body, jnp.zeros_like(first), (d_states, before, z, r, n, candidate_part), reverse=True
    )
    d_state_part = jnp.concatenate([d_inputs[..., : 2 * width], d_inputs[..., 2 * width :] * r], axis=-1)
    before, d_state_part = before.reshape(-1, width), d_state_part.reshape(-1, 3 * width)
    (d_recurrent,) = jax.linear_transpose(lambda w: product(before, w), recurrent)(d_state_part)
    return d_inputs, d_recurrent, d_state_part.sum(axis=0), d_first


gru_recurrence.defvjp(_gru_recurrence_forward, _gru_recurrence_backward)


class GRU(Layer):
    """Gated recurrent unit, "reset after" form (Keras, PyTorch); gate order update, reset, candidate."""

    def __init__(self, n_in: int, width: int, *, rngs: nnx.Rngs, use_bias: bool = True):
        self.width = width
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (n_in, 3 * width)))
        recurrent = [_orthogonal(rngs.params(), (width, width)) for _ in range(3)]
        self.recurrent = nnx.Param(jnp.concatenate(recurrent, axis=1))
        self.bias = nnx.Param(jnp.zeros(3 * width)) if use_bias else None
        self.recurrent_bias = nnx.Param(jnp.zeros(3 * width)) if use_bias else None

    def recur(self, h: Float[Array, "... width"]) -> Float[Array, "... gates"]:
        """The part of the gates from the state: ``U h``."""
        h = self.inputs(h)
        return h @ self.recurrent[...] if self.packed is None or h.ndim > 1 else self.packed["recurrent"].times(h)

    def recurrence(self, inputs: Array, bias: Array, h: Array) -> Array:
        """``gru_recurrence`` with this one's weights."""
        return gru_recurrence(inputs, self.recurrent[...], bias, h)

    def init_state(self) -> Float[Array, "width"]:
        return jnp.zeros(self.width)

    def project(self, x: Float[Array, "... n_in"]) -> Float[Array, "... gates"]:
        """The part of the gates that needs no state: ``W x + b``."""
        y = self.times(x)
        return y if self.bias is None else y + self.bias[...]

    def advance(self, h: Float[Array, "... width"], inputs: Float[Array, "... gates"]) -> Float[Array, "... width"]:
        """The next state from projected inputs."""
        recurrent = self.recur(h)
        if self.recurrent_bias is not None:
            recurrent = recurrent + self.recurrent_bias[...]
        return gru_gates(inputs, recurrent, h)

    def step(self, h: Float[Array, "... width"], x: Float[Array, "... n_in"]):
        return self._body(h, self.project(x))

    def _body(self, h: Array, inputs: Array) -> tuple[Array, Array]:
        h = self.advance(h, inputs)
        return h, h

    def scan(
        self,
        h: Float[Array, "... width"],
        xs: Float[Array, "time ... n_in"],
        reset: tuple[Bool[Array, "time ..."], Float[Array, "time ... width"]] | None = None,
    ):
        """Run over time; all inputs are projected in one product.

        ``reset = (where, states)``: before step t the state becomes ``states[t]`` wherever ``where[t]``.
        """
        inputs = self.project(xs)
        if reset is None:
            return self.run(h, inputs)

        def body(h, x):
            inputs, where, state = x
            return self._body(jnp.where(where[..., None], state, h), inputs)

        return jax.lax.scan(body, h, (inputs, *reset))

    def run(self, h: Float[Array, "... width"], inputs: Float[Array, "time ... gates"]):
        """``scan`` over inputs that are projected already."""
        if self.rounded:
            return jax.lax.scan(self._body, h, inputs)
        bias = jnp.zeros(3 * self.width) if self.recurrent_bias is None else self.recurrent_bias[...]
        h = jnp.broadcast_to(h, inputs.shape[1:-1] + (self.width,))
        states = self.recurrence(inputs, bias, h)
        return (states[-1] if len(states) else h), states


class CausalConv(Layer):
    """Causal convolution over time of kernel size k and dilation d; zeros before the start."""

    def __init__(
        self, n_in: int, n_out: int, *, kernel_size: int, dilation: int = 1, rngs: nnx.Rngs, use_bias: bool = True
    ):
        self.n_in, self.kernel_size, self.dilation = n_in, kernel_size, dilation
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (kernel_size * n_in, n_out)))
        self.bias = nnx.Param(jnp.zeros(n_out)) if use_bias else None

    @property
    def memory(self) -> int:
        """Past inputs that the state holds."""
        return (self.kernel_size - 1) * self.dilation

    def init_state(self) -> Float[Array, "memory n_in"]:
        return jnp.zeros((self.memory, self.n_in))

    def _weigh(self, taps: list[Array]) -> Array:
        """``taps`` are oldest first, as the rows of the kernel are."""
        y = self.times(jnp.concatenate(taps, axis=-1))
        return y if self.bias is None else y + self.bias[...]

    def step(self, memory: Float[Array, "... memory n_in"], x: Float[Array, "... n_in"]):
        taps = [memory[..., i * self.dilation, :] for i in range(self.kernel_size - 1)]
        memory = jnp.concatenate([memory, x[..., None, :]], axis=-2)[..., 1:, :]
        return memory, self._weigh([*taps, x])

    def scan(
        self,
        memory: Float[Array, "... memory n_in"],
        xs: Float[Array, "time ... n_in"],
        since_reset: Float[Array, "time ..."] | None = None,
    ):
        """Run over time at once. ``since_reset[t]``: steps since the last reset; taps further back read zero."""
        padded = jnp.concatenate([jnp.moveaxis(memory, -2, 0), xs])
        taps = []
        for i in range(self.kernel_size):
            tap = padded[i * self.dilation : i * self.dilation + xs.shape[0]]
            if since_reset is not None:
                back = (self.kernel_size - 1 - i) * self.dilation
                tap = jnp.where((since_reset >= back)[..., None], tap, 0.0)
            taps.append(tap)
        return jnp.moveaxis(padded[xs.shape[0] :], 0, -2), self._weigh(taps)
