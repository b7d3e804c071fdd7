"""What is played, packet by packet: the received sound, or the vocoder's where a packet is lost.

Geometry. Row k of the features is centred on sample 160 k and the vocoder speaks [160 k - 80, 160 k + 80) from it.
Let a gap begin at frame K; the last real sample is 160 K - 1 and the last real row K - 1.

* The first lost packet primes the vocoder on the real rows before K and on row K, whose first half is real; it then
  speaks the second half of row K and the rows K + 1 and K + 2. The packet ends in the middle of row K + 2: its
  second half is *pending*.
* The next lost packet begins with the pending samples and speaks two more rows.
* A vocoder with a look ahead of L rows is given rows up to K + 2 + L for it.
* The first packet after the gap is faded in over the pending samples, 5 ms; earlier where they were predicted.

The predictor runs on every frame and follows what was received, described (DRED) or lost. Rows from K + 2 on are a look
ahead to frames that may yet arrive, so the state after them is never kept: the next packet starts again from the state
after row K + 1. Hence there is nothing to rewind when the gap ends, and a row that becomes known later takes its place.
Sound that resumes gives the features of its first frame away, as their window reaches back into the gap.

Sources: J.-M. Valin et al., "Real-time packet loss concealment with mixed generative and predictive model"
(Interspeech 2022); libopus 1.6 for the attenuation of long losses, twice ours.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jdred.config import FRAME_SAMPLES, NUM_BANDS, NUM_FEATURES, PACKET_FRAMES, PACKET_SAMPLES
from jdred.dsp.burg import burg_features
from jdred.dsp.features import FeatureExtractor
from jdred.plc import predictor as inputs
from jdred.plc.predictor import Predictor, PredictorState
from jdred.streaming import Streaming, scan
from jdred.vocoder import Vocoder, VocoderInput

SPOKEN_ROWS = PACKET_FRAMES + 1
"""Feature rows that a lost packet reaches into: those centred on its two frames' starts and on its end."""
HALF_FRAME = FRAME_SAMPLES // 2
FADE_IN = np.float32(0.5 - 0.5 * np.cos(np.pi * np.arange(HALF_FRAME) / HALF_FRAME))
"""[80] weight of the received sound where the pending samples were described: a raised cosine."""
FADE_IN_EARLY = 1 - (1 - FADE_IN) ** 4
"""[80] the same where they were predicted: half after 1.3 ms.

A guess is often out of phase with what follows, and where the two are mixed a dent is left: PESQ with isolated losses
1.794 with ``FADE_IN``, 1.814 with this (``experiments/concealment.py``, 24 test clips).
"""
ATTENUATION = np.float32([0, 0, -0.1, -0.1, -0.2, -0.2, -0.4, -0.4, -0.8, -0.8])
"""Added to c_0 of the n-th predicted frame in a row (first: 1); 1 less for each frame beyond. 1 is 2.36 dB.

Half of libopus's: PESQ, ESTOI and PLCMOS of validation speech with bursts of 120 and 400 ms are all better for it.
"""
SILENCE = np.pad(np.float32([-2 * NUM_BANDS**0.5 - 4]), (0, NUM_FEATURES - 1))
"""A feature row of digital silence: every band at the floor of 0.01; pitch and correlation are of no account."""
LONG_LOST = 100
"""Frames that count as lost before a stream begins: with nothing to go on, prediction starts out silent."""


def attenuate(features: Float[Array, "... 20"], count: Int[Array, "..."], floor: float) -> Float[Array, "... 20"]:
    """Fade a prediction out: the ``count``-th predicted frame in a row, c_0 not below ``floor``."""
    last = len(ATTENUATION) - 1
    offset = jnp.asarray(ATTENUATION)[jnp.minimum(count, last)] - jnp.maximum(count - last, 0)
    return features.at[..., 0].set(jnp.maximum(features[..., 0] + offset, floor))


class ConcealerState(NamedTuple):
    """One stream after its newest packet."""

    analyser: PyTree
    """Of the feature extractor, which hears everything: received sound and, in gaps, what was spoken."""
    rows: Float[Array, "prime 20"]
    """The newest feature rows, to prime the vocoder on."""
    pcm: Float[Array, "past"]
    """The samples played last, those that the rows describe and 80 more."""
    predictor: PredictorState
    """After the newest frame; no look ahead in it."""
    vocoder: PyTree
    """After the pending samples; of use in a gap only."""
    pending: Float[Array, "80"]
    """In a gap: spoken beyond the newest packet."""
    guessed: Bool[Array, ""]
    """The pending samples were predicted."""
    concealed: Bool[Array, ""]
    """The newest packet was lost."""
    predicted: Int[Array, ""]
    """Frames predicted in a row up to the newest."""


class ConcealerInput(NamedTuple):
    """One packet slot of 20 ms; what does not apply may hold anything."""

    pcm: Float[Array, "320"]
    """The decoded packet in [-1, 1] where not lost."""
    lost: Bool[Array, ""]
    rows: Float[Array, "rows 20"]
    """Feature rows K, K + 1, ... of a lost packet that begins at frame K, where known; ``Concealer.conceal_rows``."""
    known: Bool[Array, "rows"]
    uniforms: Float[Array, "3 160 8"]
    """Uniform numbers in [0, 1) for the vocoder, by spoken row; those of row K serve at the start of a gap."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Concealer:
    """Streaming part for one stream (``vmap`` for more): ``step``, or its two sides ``good`` and ``conceal``.

    A pytree of its networks, so it can be an argument of compiled functions.
    """

    predictor: Predictor
    vocoder: Vocoder
    analyser: Streaming = field(default_factory=FeatureExtractor)

    @property
    def conceal_rows(self) -> int:
        """Feature rows that it takes to conceal a packet: those spoken and what the vocoder sees ahead."""
        return SPOKEN_ROWS + self.vocoder.lookahead_rows

    def init_state(self) -> ConcealerState:
        """A stream that has heard silence."""
        prime = self.vocoder.prime_rows
        return ConcealerState(
            analyser=self.analyser.init_state(),
            rows=jnp.broadcast_to(SILENCE, (prime, NUM_FEATURES)),
            pcm=jnp.zeros(prime * FRAME_SAMPLES + HALF_FRAME),
            predictor=self.predictor.init_state(),
            vocoder=self.vocoder.init_state(),
            pending=jnp.zeros(HALF_FRAME),
            guessed=jnp.zeros((), bool),
            concealed=jnp.zeros((), bool),
            predicted=jnp.full((), LONG_LOST, jnp.int32),
        )

    def step(self, state: ConcealerState, x: ConcealerInput) -> tuple[ConcealerState, Float[Array, "320"]]:
        """One packet slot, lost or not: ``good`` or ``conceal``."""
        # What does not apply may be NaN and must not reach gradients where both sides are computed (vmap).
        pcm = jnp.where(x.lost, 0.0, x.pcm)
        known = x.known & x.lost
        state, played = jax.lax.cond(
            x.lost,
            lambda s: self._speak(s, x.rows, known, x.uniforms),
            lambda s: (s, self._fade_in(s, pcm)),
            state,
        )
        state, rows = self._hear(state, jnp.where(x.lost, played, pcm), played)
        return jax.lax.cond(x.lost, lambda s: s, lambda s: self._follow(s, pcm, rows), state), played

    def good(self, state: ConcealerState, pcm: Float[Array, "320"]) -> tuple[ConcealerState, Float[Array, "320"]]:
        """A packet that arrived (or its LBRR copy): passed on as it is, faded in where it ends a gap."""
        played = self._fade_in(state, pcm)
        # The features hear the packet without the fade: their second window then holds no spoken sample.
        state, rows = self._hear(state, pcm, played)
        return self._follow(state, pcm, rows), played

    def conceal(
        self,
        state: ConcealerState,
        rows: Float[Array, "rows 20"],
        known: Bool[Array, "rows"],
        uniforms: Float[Array, "3 160 8"],
    ) -> tuple[ConcealerState, Float[Array, "320"]]:
        """A lost packet that begins at frame K: spoken from its rows where known, else from predictions.

        Args:
          rows: the ``conceal_rows`` feature rows from K on; anything, NaN included, where not known.
          known: which of them are.
          uniforms: in [0, 1), for the three rows that are spoken.
        """
        state, played = self._speak(state, rows, known, uniforms)
        state, _ = self._hear(state, played, played)
        return state, played

    def _fade_in(self, state: ConcealerState, pcm: Float[Array, "320"]) -> Float[Array, "320"]:
        """What is played of a received packet."""
        weight = jnp.where(state.guessed, FADE_IN_EARLY, FADE_IN)
        head = weight * pcm[:HALF_FRAME] + (1 - weight) * state.pending
        faded = jnp.concatenate([head, pcm[HALF_FRAME:]])
        return jnp.clip(jnp.where(state.concealed, faded, pcm), -1.0, 1.0)

    def _follow(self, state: ConcealerState, pcm: Float[Array, "320"], rows: Float[Array, "2 20"]) -> ConcealerState:
        """Step the predictor with a received packet and end the gap."""
        burg = burg_features(pcm.reshape(PACKET_FRAMES, FRAME_SAMPLES))
        x = inputs.received(burg, rows)
        first = jnp.where(state.concealed, inputs.resumed(burg[0]), x[0])
        predictor, _ = self.predictor.scan(state.predictor, x.at[0].set(first))
        return state._replace(predictor=predictor, concealed=jnp.zeros((), bool), predicted=jnp.zeros((), jnp.int32))

    def _hear(
        self, state: ConcealerState, heard: Float[Array, "320"], played: Float[Array, "320"]
    ) -> tuple[ConcealerState, Float[Array, "2 20"]]:
        """Extract features of what is heard, remember what is played; returns the packet's rows."""
        analyser, rows = scan(self.analyser, state.analyser, heard.reshape(PACKET_FRAMES, FRAME_SAMPLES))
        state = state._replace(
            analyser=analyser,
            rows=jnp.concatenate([state.rows, rows])[PACKET_FRAMES:],
            pcm=jnp.concatenate([state.pcm, played])[PACKET_SAMPLES:],
        )
        return state, rows

    def _speak(
        self, state: ConcealerState, rows: Array, known: Array, uniforms: Array
    ) -> tuple[ConcealerState, Float[Array, "320"]]:
        """The sound of a lost packet; see ``conceal``."""
        rows = jnp.where(known[:, None], rows, 0.0)
        packet, ahead = ((rows[part], known[part]) for part in (slice(PACKET_FRAMES), slice(PACKET_FRAMES, None)))
        kept, packet_rows = jax.lax.scan(self._next_row, (state.predictor, state.predicted), packet)
        _, rows_ahead = jax.lax.scan(self._next_row, kept, ahead)
        rows = jnp.concatenate([packet_rows, rows_ahead])
        first, rest = rows[:-PACKET_FRAMES], VocoderInput(rows[-PACKET_FRAMES:], uniforms[1:])
        vocoder, head = jax.lax.cond(
            state.concealed,
            lambda s: (s.vocoder, s.pending),
            lambda s: self.vocoder.prime(jnp.concatenate([s.rows, first]), s.pcm, uniforms[0]),
            state,
        )
        vocoder, tail = jax.lax.scan(self.vocoder.step, vocoder, rest)
        pcm = jnp.clip(jnp.concatenate([head, tail.reshape(-1)]), -1.0, 1.0)
        predictor, predicted = kept
        state = state._replace(
            predictor=predictor,
            predicted=predicted,
            vocoder=vocoder,
            pending=pcm[PACKET_SAMPLES:],
            guessed=~known[PACKET_FRAMES],
            concealed=jnp.ones((), bool),
        )
        return state, pcm[:PACKET_SAMPLES]

    def _next_row(self, carry: tuple[PredictorState, Array], x: tuple[Array, Array]):
        """The row to speak for a lost frame; steps the predictor and the count of predicted frames."""
        predictor, count = carry
        row, known = x
        predictor, predicted = self.predictor.step(predictor, jnp.where(known, inputs.described(row), inputs.lost()))
        count = jnp.where(known, 0, count + 1)
        return (predictor, count), jnp.where(known, row, attenuate(predicted, count, self.vocoder.floor))
