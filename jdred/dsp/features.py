"""PCM to features, 20 per frame of 10 ms: 18 cepstra, pitch, pitch correlation.

Row k is computed from samples [160 k - 160, 160 k + 160) and centred on sample 160 k; its pitch and correlation belong
to samples [160 k - 80, 160 k + 80). Before the first sample there is silence. Everything but the recursion of the pitch
tracker runs in parallel over frames, so that a step is simply a sequence of one frame.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jdred.config import FRAME_SAMPLES, LPC_ORDER
from jdred.dsp import INT16_SCALE, bands, filters, lpc, pitch
from jdred.streaming import batch_state


class FeatureState(NamedTuple):
    """What feature extraction remembers of one stream, in int16 units."""

    sample: Float[Array, "..."]
    """The last sample."""
    emphasised: Float[Array, "... 160"]
    """The last frame, pre-emphasised."""
    residual: Float[Array, "... 3 160"]
    """LPC residual of the last three frames."""
    pitch: PyTree
    """Of the pitch tracker."""


def _analyse(
    tracker: pitch.Tracker, state: FeatureState, frames: Float[Array, "... frames 160"]
) -> tuple[FeatureState, Float[Array, "... frames 20"]]:
    """Rows of successive frames."""
    signal = INT16_SCALE * frames.reshape(*frames.shape[:-2], -1)
    emphasised, sample = filters.preemphasize(signal, state.sample)
    blocks = jnp.concatenate([state.emphasised[..., None, :], emphasised.reshape(frames.shape)], axis=-2)
    windows = filters.overlap(blocks, 2)
    cepstrum = bands.cepstrum(windows)

    middle = FRAME_SAMPLES // 2
    aligned = windows[..., middle - LPC_ORDER : middle + FRAME_SAMPLES]
    residual = lpc.residual(lpc.lpc_from_cepstrum(cepstrum), aligned)
    residual = jnp.concatenate([state.residual, residual], axis=-2)
    tracked, found = tracker.track(state.pitch, windows, residual)
    rho = pitch.correlation(residual, found.period)
    rows = [cepstrum, found.feature[..., None], pitch.correlation_feature(rho)[..., None]]
    state = FeatureState(sample, blocks[..., -1, :], residual[..., -pitch.PAST_FRAMES :, :], tracked)
    return state, jnp.concatenate(rows, axis=-1)


@partial(jax.tree_util.register_dataclass, data_fields=["tracker"], meta_fields=[])
@dataclass(frozen=True)
class FeatureExtractor:
    """Streaming feature extraction: one frame of PCM in, one row out. A pytree of its pitch tracker."""

    tracker: pitch.Tracker = pitch.Viterbi()

    def init_state(self) -> FeatureState:
        """Silence before the first sample."""
        past = jnp.zeros((pitch.PAST_FRAMES, FRAME_SAMPLES))
        return FeatureState(jnp.zeros(()), jnp.zeros(FRAME_SAMPLES), past, self.tracker.init_state())

    def step(self, state: FeatureState, pcm: Float[Array, "... 160"]) -> tuple[FeatureState, Float[Array, "... 20"]]:
        """The row of one frame of PCM in [-1, 1]."""
        state, rows = _analyse(self.tracker, state, pcm[..., None, :])
        return state, rows[..., 0, :]

    def scan(
        self, state: FeatureState, pcm: Float[Array, "frames ... 160"]
    ) -> tuple[FeatureState, Float[Array, "frames ... 20"]]:
        """The parallel twin of ``step``, time first."""
        state, rows = _analyse(self.tracker, state, jnp.moveaxis(pcm, 0, -2))
        return state, jnp.moveaxis(rows, -2, 0)


EXTRACTOR = FeatureExtractor()


def extract(pcm: Float[Array, "... samples"], extractor: FeatureExtractor = EXTRACTOR) -> Float[Array, "... frames 20"]:
    """Features of whole signals in [-1, 1] at 16 kHz; an incomplete last frame is dropped.

    Differentiable in the PCM, but for the pitch. Silence and clipped noise give finite values and gradients.
    """
    batch, frames = pcm.shape[:-1], pcm.shape[-1] // FRAME_SAMPLES
    blocks = pcm[..., : frames * FRAME_SAMPLES].reshape(*batch, frames, FRAME_SAMPLES)
    state = batch_state(extractor.init_state(), batch)
    return _analyse(extractor.tracker, state, blocks)[1]
