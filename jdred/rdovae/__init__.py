"""Features to latents and back: the rate-distortion-optimised variational autoencoder.

The encoder runs forwards, one latent every 20 ms; the decoder runs backwards in time from a coded state, four feature
rows a latent (Valin, Büthe, Mustafa, "Low-bitrate redundancy coding of speech using a rate-distortion-optimized
variational autoencoder", ICASSP 2023).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jdred.config import CHUNK_FRAMES, NUM_FEATURES, NUM_LEVELS, RDOVAEConfig
from jdred.rdovae.decoder import DecoderInput, make_decoder
from jdred.rdovae.encoder import make_encoder
from jdred.rdovae.quantizer import Quantizer, dequantize, pvq_symbols, symbols, to_unit


class RDOVAE(nnx.Module):
    """Encoder, decoder and the quantisers of latents and states: everything that sender and receiver share."""

    def __init__(self, config: RDOVAEConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = make_encoder(config, rngs=rngs)
        self.decoder = make_decoder(config, rngs=rngs)
        self.latent_quantizer = Quantizer(NUM_LEVELS, config.latent_dim, config.integer_tables)
        self.state_quantizer = Quantizer(NUM_LEVELS, config.state_dim, config.integer_tables)

    def quantize(
        self, latents: Float[Array, "chunks latent"], state: Float[Array, "state"], levels: Int[Array, "chunks"]
    ) -> tuple[Int[Array, "chunks latent"], Int[Array, "state"]]:
        """Symbols of a redundancy: latents newest first at their levels, the state at the newest one's level."""
        return symbols(latents, self.latent_quantizer.at(levels)), self.state_symbols(state, levels[0])

    def reconstruct(
        self, latents: Int[Array, "chunks latent"], state: Int[Array, "state"], levels: Int[Array, "chunks"]
    ) -> Float[Array, "rows 20"]:
        """Feature rows, newest first, from the symbols of a redundancy."""
        values = dequantize(latents, self.latent_quantizer.at(levels))
        start = self.decoder.start(self._start(state, levels[0]))
        _, rows = self.decoder.scan(start, DecoderInput(values, levels))
        return rows.reshape(-1, rows.shape[-1])

    def reconstruct_newest(
        self,
        latents: Int[Array, "chunks latent"],
        state: Int[Array, "state"],
        levels: Int[Array, "chunks"],
        wanted: Int[Array, ""],
    ) -> Float[Array, "rows 20"]:
        """The same for the ``wanted`` newest chunks only, at a cost in proportion; the other rows are zero."""
        values, levels = dequantize(latents, self.latent_quantizer.at(levels)), jnp.asarray(levels)

        def more(carry):
            return carry[0] < wanted

        def chunk(carry):
            number, memory, rows = carry
            memory, new = self.decoder.step(memory, DecoderInput(values[number], levels[number]))
            return number + 1, memory, rows.at[number].set(new)

        rows = jnp.zeros((len(levels), CHUNK_FRAMES, NUM_FEATURES))
        start = self.decoder.start(self._start(state, levels[0]))
        rows = jax.lax.while_loop(more, chunk, (jnp.int32(0), start, rows))[2]
        return rows.reshape(-1, NUM_FEATURES)

    def _start(self, state: Int[Array, "state"], level: Int[Array, ""]) -> Float[Array, "state"]:
        """The coded state from its symbols."""
        return to_unit(state) if self.config.pvq_pulses else dequantize(state, self.state_quantizer.at(level))

    def state_symbols(self, state: Float[Array, "... state"], level: Int[Array, "..."]) -> Int[Array, "... state"]:
        """Symbols of states at a level; pulses, the same at all levels, where ``pvq_pulses`` says so."""
        if self.config.pvq_pulses:
            return pvq_symbols(state, self.config.pvq_pulses)
        return symbols(state, self.state_quantizer.at(level))


__all__ = ["RDOVAE", "DecoderInput", "Quantizer"]
