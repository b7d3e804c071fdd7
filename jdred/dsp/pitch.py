"""Pitch: normalised cross-correlation of the LPC residual, a Viterbi tracker over half-frames, and our pitch law.

The tracker is the frame-wise one of the LPCNet code base: its forward recursion runs on over all half-frames, its
back-tracking stays inside the frame. It gives indices and takes no gradient; the correlation at a given period does.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdred.config import FRAME_SAMPLES, MAX_PERIOD, MIN_PERIOD
from jdred.dsp.filters import overlap

State = TypeVar("State")
HALF_SAMPLES = FRAME_SAMPLES // 2
NUM_LAGS = MAX_PERIOD - MIN_PERIOD
"""States of the tracker: index i stands for the period 256 - i."""
PAST_FRAMES = 3
"""Frames of residual before the newest that pitch needs: 256 samples of lag, and the memory of the low-pass."""
_SMOOTHING = 0.7
_THIRDS = np.float32([0.026184, -0.098339, 0.369938, 0.837891, -0.184969, 0.070242, -0.020947])
"""Interpolation by a third of a sample (windowed sinc); reversed, by a third the other way."""
_OCTAVE_MARGIN, _OCTAVE_PENALTY = 1.1, 0.8
_JUMP_COST = 6.0
_MOVE_COST = 0.02


class PitchState(NamedTuple):
    """The tracker between two half-frames."""

    score: Float[Array, "... 224"]
    """Best path into every lag, relative to the best of all."""
    best: Int[Array, "..."]
    """Index of the best lag."""
    best_score: Float[Array, "..."]
    """Its score before the others were taken relative to it."""


class Pitch(NamedTuple):
    """What the tracker says of frames."""

    half_periods: Int[Array, "... 2"]
    """Periods of the two half-frames in samples, 33 .. 256."""
    correlation: Float[Array, "..."]
    """Normalised cross-correlation along the path, weighted by energy; about 0 .. 1."""

    @property
    def period(self) -> Float[Array, "..."]:
        """Mean period in samples, 33 .. 255, a multiple of 0.5."""
        return jnp.clip(self.half_periods.sum(axis=-1), 66, 510) / 2


def init_state() -> PitchState:
    return PitchState(jnp.zeros(NUM_LAGS), jnp.zeros((), jnp.int32), jnp.zeros(()))


def pitch_feature(period: Float[Array, "..."]) -> Float[Array, "..."]:
    """``log2(256 / period) - 1.5``: -1.5 for 62.5 Hz, one unit per octave."""
    return jnp.log2(MAX_PERIOD / period) - 1.5


def period_from_feature(feature: Float[Array, "..."]) -> Int[Array, "..."]:
    """The period in whole samples, 32 .. 255, that a pitch feature stands for; any feature is valid."""
    period = jnp.floor(0.5 + MAX_PERIOD / 2 ** (jnp.clip(feature, -2.0, 2.0) + 1.5))
    return jnp.clip(period, MIN_PERIOD, MAX_PERIOD - 1).astype(jnp.int32)


def _window_energies(x: Float[Array, "... length"], size: int) -> Float[Array, "... positions"]:
    """Energy of every window of so many samples, by doubling: no running sum, so no drift."""
    sums, width = {1: x * x}, 1
    while 2 * width <= size:
        sums[2 * width] = sums[width][..., :-width] + sums[width][..., width:]
        width *= 2
    positions, start, total = x.shape[-1] - size + 1, 0, 0.0
    while start < size:
        if size & width:
            total = total + sums[width][..., start : start + positions]
            start += width
        width //= 2
    return total


def _correlate(x: Float[Array, "... size"], past: Float[Array, "... length"]) -> Float[Array, "... positions"]:
    """Inner products of x with every window of its size of the past, by FFT."""
    size = past.shape[-1]
    spectrum = jnp.fft.rfft(past) * jnp.conj(jnp.fft.rfft(x, size))
    return jnp.fft.irfft(spectrum, size)[..., : size - x.shape[-1] + 1]


def smoothed(residual: Float[Array, "... blocks 160"]) -> Float[Array, "... samples"]:
    """``e[n] + 0.7 e[n-1]`` of all but the first block, in one row."""
    flat = residual.reshape(*residual.shape[:-2], -1)
    return flat[..., FRAME_SAMPLES:] + _SMOOTHING * flat[..., FRAME_SAMPLES - 1 : -1]


def repetition(
    windows: Float[Array, "... length"],
) -> tuple[Float[Array, "... 256"], Float[Array, "..."]]:
    """Normalised correlation of the end of a signal with what was 256, 255, ..., 1 samples earlier; and its energy.

    Args:
      windows: 256 samples of the past, then those that are compared.
    """
    current = windows[..., MAX_PERIOD:]
    energy = _window_energies(windows, current.shape[-1])
    own = energy[..., MAX_PERIOD:]
    products = _correlate(current, windows)[..., :MAX_PERIOD]
    return 2 * products / (1 + own + energy[..., :MAX_PERIOD]), own


def _sharpen(xc: Float[Array, "... 256"]) -> Float[Array, "... 256"]:
    """The largest of each lag's correlation and its two interpolations at a third of a sample to either side."""

    def interpolate(taps: np.ndarray) -> Array:
        return sum(tap * xc[..., 1 + i : 249 + i] for i, tap in enumerate(taps))

    inner = jnp.maximum(jnp.maximum(interpolate(_THIRDS), interpolate(_THIRDS[::-1])), xc[..., 4:252])
    return jnp.concatenate([xc[..., :4], inner, xc[..., 252:]], axis=-1)


def _penalise_octaves(xc: Float[Array, "... 256"]) -> Float[Array, "... 224"]:
    """Weaken a lag over 64 that is hardly better than its half."""
    i = np.arange(MAX_PERIOD - 2 * MIN_PERIOD)
    halves = [(MAX_PERIOD + i) // 2, (MAX_PERIOD + i + 2) // 2, (MAX_PERIOD + i - 1) // 2]
    half = jnp.maximum(jnp.maximum(xc[..., halves[0]], xc[..., halves[1]]), xc[..., halves[2]])
    long = xc[..., : len(i)]
    long = jnp.where(long < _OCTAVE_MARGIN * half, _OCTAVE_PENALTY * long, long)
    return jnp.concatenate([long, xc[..., len(i) : NUM_LAGS]], axis=-1)


def cross_correlation(
    residual: Float[Array, "... blocks 160"],
) -> tuple[Float[Array, "... frames 2 224"], Float[Array, "... frames 2"]]:
    """How well each half-frame repeats after each period, and how much it weighs; takes no gradient.

    Args:
      residual: LPC residual, ``frames + 3`` blocks of 160 samples, the first three being the past.
    Returns:
      ``(xc, weight)``: the correlation by lag index, and the energies of the half-frames, mean 1 in each frame.
    """
    residual = jax.lax.stop_gradient(residual)
    batch, blocks = residual.shape[:-2], residual.shape[-2]
    halves = smoothed(residual).reshape(*batch, -1, HALF_SAMPLES)
    xc, own = repetition(overlap(halves, 5)[..., 5 * HALF_SAMPLES - HALF_SAMPLES - MAX_PERIOD :])
    weight = own.reshape(*batch, blocks - PAST_FRAMES, 2)
    weight = weight * 2 / (1e-15 + weight.sum(axis=-1, keepdims=True))
    return _penalise_octaves(_sharpen(xc)).reshape(*batch, blocks - PAST_FRAMES, 2, NUM_LAGS), weight


def _advance(
    state: PitchState, xc: Float[Array, "... 224"], weight: Float[Array, "..."]
) -> tuple[PitchState, Int[Array, "..."]]:
    """One half-frame of the forward recursion; also the index from which the best path came."""
    moves = [(move, _MOVE_COST * move * move) for move in range(-4, 5)]
    padded = jnp.pad(state.score, [(0, 0)] * (state.score.ndim - 1) + [(4, 4)], constant_values=-jnp.inf)
    jump = (state.best_score - _JUMP_COST)[..., None]
    before = jump
    for move, cost in moves:
        before = jnp.maximum(before, padded[..., 4 + move : 4 + move + NUM_LAGS] - cost)
    score = before + weight[..., None] * xc
    best = jnp.argmax(score, axis=-1).astype(jnp.int32)
    best_score = jnp.max(score, axis=-1)

    distance = jnp.arange(NUM_LAGS) - best[..., None]
    arrivals = jnp.where(jnp.abs(distance) <= 4, state.score - _MOVE_COST * distance**2, -jnp.inf)
    walked = jnp.max(arrivals, axis=-1) > jump[..., 0]
    origin = jnp.where(walked, jnp.argmax(arrivals, axis=-1).astype(jnp.int32), state.best)
    return PitchState(score - best_score[..., None], best, best_score), origin


def track(
    state: PitchState, xc: Float[Array, "... frames 2 224"], weight: Float[Array, "... frames 2"]
) -> tuple[PitchState, Pitch]:
    """Follow the pitch through frames.

    The cost of a jump counts from the best score before it was taken off, as the original has it, so that jumps are
    cheaper after well-matching half-frames.
    """

    def frame(state: PitchState, x: tuple[Array, Array]) -> tuple[PitchState, Array]:
        xc, weight = x
        state, _ = _advance(state, xc[..., 0, :], weight[..., 0])
        state, first = _advance(state, xc[..., 1, :], weight[..., 1])
        return state, jnp.stack([first, state.best], axis=-1)

    xs = (jnp.moveaxis(xc, -3, 0), jnp.moveaxis(weight, -2, 0))
    state, indices = jax.lax.scan(frame, state, xs)
    indices = jnp.moveaxis(indices, 0, -2)
    along = jnp.take_along_axis(xc, indices[..., None], axis=-1)[..., 0]
    return state, Pitch(MAX_PERIOD - indices, jnp.mean(weight * along, axis=-1))


class Tracked(NamedTuple):
    """The pitch of frames, from any tracker."""

    feature: Float[Array, "..."]
    """By the law of ``pitch_feature``."""
    period: Int[Array, "..."]
    """In whole samples, 32 .. 256, as a decoder reads it from the feature."""


class Tracker(Protocol[State]):
    """A choice of pitch tracker for ``dsp.features``; a pytree. Pitch takes no gradient."""

    def init_state(self) -> State:
        """Silence before the first sample."""

    def track(
        self, state: State, windows: Float[Array, "... frames 320"], residual: Float[Array, "... blocks 160"]
    ) -> tuple[State, Tracked]:
        """Follow the pitch through frames.

        Args:
          windows: pre-emphasised signal that each row is computed from.
          residual: LPC residual, ``frames + 3`` blocks of 160 samples, the first three being the past.
        """


@jax.tree_util.register_static
@dataclass(frozen=True)
class Viterbi:
    """The classical tracker of this module."""

    def init_state(self) -> PitchState:
        return init_state()

    def track(self, state: PitchState, windows: Array, residual: Array) -> tuple[PitchState, Tracked]:
        del windows
        state, found = track(state, *cross_correlation(residual))
        # Halves round up.
        return state, Tracked(pitch_feature(found.period), jnp.floor(found.period + 0.5).astype(jnp.int32))


def _low_pass_taps() -> np.ndarray:
    """First 160 taps of the low-pass; its poles lie at radius 0.84, so that what is cut off is below 1e-11."""
    b, a = (1.0, -0.84946, 1.0), (1.0, -1.54220, 0.70781)
    taps = np.zeros(FRAME_SAMPLES)
    for n in range(FRAME_SAMPLES):
        taps[n] = (b[n] if n < 3 else 0.0) - sum(a[j] * taps[n - j] for j in (1, 2) if n >= j)
    return taps


def _low_pass_matrix() -> np.ndarray:
    """[320, 160]: the low-pass of a block from the block before it and itself."""
    lag = FRAME_SAMPLES + np.arange(FRAME_SAMPLES)[None] - np.arange(2 * FRAME_SAMPLES)[:, None]
    return np.where((lag >= 0) & (lag < FRAME_SAMPLES), _low_pass_taps()[lag % FRAME_SAMPLES], 0.0)


_LOW_PASS = np.float32(_low_pass_matrix())


def correlation(
    residual: Float[Array, "... blocks 160"], period: Int[Array, "... frames"]
) -> Float[Array, "... frames"]:
    """Normalised correlation, -1 .. 1, of each low-passed frame with what was one period earlier.

    Args:
      residual: LPC residual, ``frames + 3`` blocks of 160 samples, the first three being the past.
      period: in samples, 0 .. 256; the result is differentiable in the residual only.
    """
    windows = overlap(overlap(residual, 2) @ _LOW_PASS, PAST_FRAMES)
    start = (PAST_FRAMES - 1) * FRAME_SAMPLES
    current = windows[..., start:]
    earlier = jnp.take_along_axis(windows, start - period[..., None] + np.arange(FRAME_SAMPLES), axis=-1)
    energies = jnp.sum(current**2, axis=-1) * jnp.sum(earlier**2, axis=-1)
    return jnp.sum(current * earlier, axis=-1) / jnp.sqrt(1 + energies)


def correlation_feature(rho: Float[Array, "..."]) -> Float[Array, "..."]:
    """``ln(1 + e^(5 rho)) / ln(1 + e^5) - 0.5``: 0.5 for full correlation, -0.36 for none, -0.499 for -1."""
    return jax.nn.softplus(5 * rho) / np.float32(np.log1p(np.exp(5.0))) - 0.5
