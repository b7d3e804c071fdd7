"""Networks whose weights are read in 16 bits: for one stream at a time on a CPU, about twice as fast.

A product of a vector and a matrix takes as long as the matrix takes to be read.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt32

from jdred.layers import GRU, Layer

LARGEST_BLOCK = 16
"""Inputs weighed at a time; with more XLA's loop is slower."""
FEWEST_BLOCKS = 16
"""With fewer XLA joins the sum of blocks with their products in a loop too large to be vectorised. Gates, which read
the sum in three places, need only half as many.
"""
FEWEST_OUTPUTS = 16
"""With fewer a kernel stays as it is."""

Module = TypeVar("Module", bound=nnx.Module)


class Packed(NamedTuple):
    """A kernel in bfloat16, its inputs in blocks, the weights of two neighbouring inputs in a word."""

    words: UInt32[Array, "blocks pairs n_out"]
    """The first of a pair in the upper half."""

    def times(self, x: Float[Array, "n_in"]) -> Float[Array, "n_out"]:
        """``x @ kernel`` in a form of which XLA's CPU compiler makes a vectorised loop that reads the words.

        A dot or a sum would first write the whole kernel out in 32 bits. The products of a block, one by one, are
        elementwise over the outputs, and so is the sum of the blocks; a half of a word is a float with a shift or a
        mask. The barrier ties the words to ``x``: else they would be taken apart ahead of a surrounding loop.
        """
        words, x = jax.lax.optimization_barrier((self.words, x))
        blocks, pairs, _ = words.shape
        x = x.reshape(blocks, 2 * pairs, 1)
        upper, lower = _float(words & jnp.uint32(0xFFFF0000)), _float(words << 16)
        parts = sum(x[:, 2 * i] * upper[:, i] + x[:, 2 * i + 1] * lower[:, i] for i in range(pairs))
        return sum(parts[i] for i in range(blocks))


def _float(words: UInt32[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.bitcast_convert_type(words, jnp.float32)


def pack(kernel: Float[Array, "n_in n_out"], fewest_blocks: int = FEWEST_BLOCKS) -> Packed:
    """Round a kernel with an even number of inputs to 8 significant bits."""
    n_in, n_out = kernel.shape
    largest = max(2, min(LARGEST_BLOCK, n_in // fewest_blocks))
    block = max(size for size in range(2, largest + 1, 2) if n_in % size == 0)
    bits = np.asarray(kernel).astype(jnp.bfloat16).view(np.uint16).astype(np.uint32)
    return Packed(jnp.asarray((bits[::2] << 16 | bits[1::2]).reshape(-1, block // 2, n_out)))


def packed(module: Module) -> Module:
    """The same network for speaking, not for training: packed kernels stand beside the others, which batches use."""
    module = jax.tree.map(lambda leaf: leaf, module)
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, Layer):
            fewest = FEWEST_BLOCKS // 2 if isinstance(layer, GRU) else FEWEST_BLOCKS
            kernels = {name: getattr(layer, name)[...] for name in ("kernel", "recurrent") if hasattr(layer, name)}
            if all(kernel.shape[0] % 2 == 0 and kernel.shape[1] >= FEWEST_OUTPUTS for kernel in kernels.values()):
                layer.packed = nnx.data({name: pack(kernel, fewest) for name, kernel in kernels.items()})
    return module
