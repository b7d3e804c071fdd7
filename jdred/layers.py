"""Layers as plain pytrees with explicit state: dense, GRU, causal convolution, GLU.

All work on the last axis, so any batch axes may stand before it. Layers with memory have ``init_state``, ``step`` and
the faster ``scan`` over a leading time axis. ``reset`` lets ``scan`` start afresh inside a sequence, which is how
random cuts train at a fixed shape.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

_kernel_init = nnx.initializers.glorot_uniform()
_orthogonal = nnx.initializers.orthogonal()


class Dense(nnx.Module):
    """``x @ kernel + bias``."""

    def __init__(self, n_in: int, n_out: int, *, rngs: nnx.Rngs, use_bias: bool = True):
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (n_in, n_out)))
        self.bias = nnx.Param(jnp.zeros(n_out)) if use_bias else None

    def __call__(self, x: Float[Array, "... n_in"]) -> Float[Array, "... n_out"]:
        y = x @ self.kernel[...]
        return y if self.bias is None else y + self.bias[...]


class GLU(nnx.Module):
    """Gated linear unit ``x * sigmoid(x @ kernel)``, square and without bias."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_orthogonal(rngs.params(), (width, width)))

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        return x * jax.nn.sigmoid(x @ self.kernel[...])


def gru_gates(
    inputs: Float[Array, "... gates"], recurrent: Float[Array, "... gates"], h: Float[Array, "... width"]
) -> Float[Array, "... width"]:
    """One GRU update in the "reset after" form; gate order update, reset, candidate.

    Args:
      inputs: ``W x + b`` of the three gates.
      recurrent: ``U h + c`` of the three gates.
      h: the state.
    """
    width = h.shape[-1]
    zr = jax.nn.sigmoid(inputs[..., : 2 * width] + recurrent[..., : 2 * width])
    z, r = zr[..., :width], zr[..., width:]
    n = jnp.tanh(inputs[..., 2 * width :] + r * recurrent[..., 2 * width :])
    return z * h + (1 - z) * n


class GRU(nnx.Module):
    """Gated recurrent unit, "reset after" form (Keras ``reset_after``, PyTorch); gate order update, reset, candidate."""

    def __init__(self, n_in: int, width: int, *, rngs: nnx.Rngs, use_bias: bool = True):
        self.width = width
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (n_in, 3 * width)))
        recurrent = [_orthogonal(rngs.params(), (width, width)) for _ in range(3)]
        self.recurrent = nnx.Param(jnp.concatenate(recurrent, axis=1))
        self.bias = nnx.Param(jnp.zeros(3 * width)) if use_bias else None
        self.recurrent_bias = nnx.Param(jnp.zeros(3 * width)) if use_bias else None

    def init_state(self) -> Float[Array, "width"]:
        return jnp.zeros(self.width)

    def project(self, x: Float[Array, "... n_in"]) -> Float[Array, "... gates"]:
        """The part of the gates that needs no state: ``W x + b``."""
        y = x @ self.kernel[...]
        return y if self.bias is None else y + self.bias[...]

    def advance(self, h: Float[Array, "... width"], inputs: Float[Array, "... gates"]) -> Float[Array, "... width"]:
        """The next state from projected inputs."""
        recurrent = h @ self.recurrent[...]
        if self.recurrent_bias is not None:
            recurrent = recurrent + self.recurrent_bias[...]
        return gru_gates(inputs, recurrent, h)

    def step(self, h: Float[Array, "... width"], x: Float[Array, "... n_in"]):
        h = self.advance(h, self.project(x))
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

        def body(h, x):
            inputs, where, state = x
            h = h if where is None else jnp.where(where[..., None], state, h)
            h = self.advance(h, inputs)
            return h, h

        where, states = (None, None) if reset is None else reset
        return jax.lax.scan(body, h, (self.project(xs), where, states))


class CausalConv(nnx.Module):
    """Causal convolution over time of kernel size k and dilation d; zeros before the start."""

    def __init__(self, n_in: int, n_out: int, *, kernel_size: int, dilation: int = 1, rngs: nnx.Rngs):
        self.n_in, self.kernel_size, self.dilation = n_in, kernel_size, dilation
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (kernel_size * n_in, n_out)))
        self.bias = nnx.Param(jnp.zeros(n_out))

    @property
    def memory(self) -> int:
        """Past inputs that the state holds."""
        return (self.kernel_size - 1) * self.dilation

    def init_state(self) -> Float[Array, "memory n_in"]:
        return jnp.zeros((self.memory, self.n_in))

    def _weigh(self, taps: list[Array]) -> Array:
        """``taps`` are oldest first, as the rows of the kernel are."""
        return jnp.concatenate(taps, axis=-1) @ self.kernel[...] + self.bias[...]

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
