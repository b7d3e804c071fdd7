"""A GRU whose recurrent weights are blocks: of each row of blocks, the same few of every gate are there.

Block row i reads the blocks of the state ``i + shift`` for the shifts of the gate, the block of the unit itself among
them. The shifts are drawn once, from the sizes. A product is then a few copies and one small product a block row, and
so is its transpose: the pattern is as regular by columns as it is by rows.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jdred.config import GRU_BLOCK as BLOCK
from jdred.layers import GRU, gru_recurrence

MANY = 4096
"""States beyond which one product with the whole matrix is faster: a gradient of all weights at once."""


@dataclass(frozen=True)
class BlockPattern:
    """Where the blocks of a gate's square matrix are."""

    shifts: tuple[int, ...]
    """Block row i reads the blocks ``i + shift``, modulo their number."""

    @classmethod
    def drawn(cls, blocks: int, density: float, seed: int) -> "BlockPattern":
        """Shift 0 and, at random, as many others as make ``density`` of the ``blocks`` a row has."""
        others = max(1, round(density * blocks)) - 1
        drawn = np.random.default_rng(seed).choice(np.arange(1, blocks), others, replace=False)
        return cls((0, *sorted(map(int, drawn))))

    def read(self, h: Float[Array, "... width"]) -> Float[Array, "rows ... inputs"]:
        """What each block row reads."""
        blocks = jnp.moveaxis(h.reshape(*h.shape[:-1], -1, BLOCK), -2, 0)
        return jnp.concatenate([jnp.roll(blocks, -shift, axis=0) for shift in self.shifts], axis=-1)

    def weigh(self, h: Float[Array, "... width"], weights: Float[Array, "rows inputs 32"]) -> Float[Array, "... width"]:
        """``h`` times the matrix."""
        products = jnp.einsum("r...i,rio->r...o", self.read(h), weights)
        return jnp.moveaxis(products, 0, -2).reshape(h.shape)

    def cut(self, matrix: Float[Array, "width width"]) -> Float[Array, "rows inputs 32"]:
        """The blocks of a whole matrix."""
        by_row = matrix.reshape(len(matrix), -1, BLOCK).swapaxes(0, 1)
        return jnp.take_along_axis(by_row, self._inputs(len(matrix))[..., None], axis=1)

    def whole(self, weights: Float[Array, "rows inputs 32"]) -> Float[Array, "width width"]:
        """The matrix of blocks, zeros elsewhere."""
        rows, width = np.arange(len(weights))[:, None], len(weights) * BLOCK
        by_row = jnp.zeros((len(weights), width, BLOCK)).at[rows, self._inputs(width)].set(weights, unique_indices=True)
        return by_row.swapaxes(0, 1).reshape(width, width)

    def _inputs(self, width: int) -> Int[Array, "rows inputs"]:
        return self.read(jnp.arange(width))


@dataclass(frozen=True)
class GatePatterns:
    """The patterns of the three gates: the product that ``gru_recurrence`` asks for."""

    gates: tuple[BlockPattern, ...]

    def __call__(self, h: Float[Array, "... width"], weights: tuple[Array, ...]) -> Float[Array, "... gates"]:
        each = list(zip(self.gates, weights, strict=True))
        if h.size // h.shape[-1] > MANY:
            return h @ jnp.concatenate([pattern.whole(blocks) for pattern, blocks in each], axis=-1)
        return jnp.concatenate([pattern.weigh(h, blocks) for pattern, blocks in each], axis=-1)


class BlockGRU(GRU):
    """``GRU`` with a share of the recurrent weights.

    Args:
      width: a multiple of ``BLOCK``.
      density: of update gate, reset gate and candidate, 0 .. 1.
    """

    def __init__(self, n_in: int, width: int, density: tuple[float, float, float], *, rngs: nnx.Rngs):
        super().__init__(n_in, width, rngs=rngs)
        patterns = [BlockPattern.drawn(width // BLOCK, share, seed) for seed, share in enumerate(density)]
        whole = jnp.split(self.recurrent[...], 3, axis=1)
        # Larger by as much as there are fewer, so that products keep their size.
        scales = [(width / BLOCK / len(pattern.shifts)) ** 0.5 for pattern in patterns]
        each = zip(patterns, whole, scales, strict=True)
        cut = [nnx.Param(scale * pattern.cut(matrix)) for pattern, matrix, scale in each]
        self.recurrent, self.product = nnx.List(cut), GatePatterns(tuple(patterns))

    def recur(self, h: Float[Array, "... width"]) -> Float[Array, "... gates"]:
        return self.product(h, self._weights())

    def recurrence(self, inputs: Array, bias: Array, h: Array) -> Array:
        return gru_recurrence(inputs, self._weights(), bias, h, self.product)

    def _weights(self) -> tuple[Array, ...]:
        return tuple(blocks[...] for blocks in self.recurrent)
