"""Linear prediction: coefficients from a cepstrum, and the prediction itself.

Sign: ``A(z) = 1 + sum a_j z^-j``, so the prediction of s[n] is ``-sum a_j s[n-j]``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jdred.config import LPC_ORDER
from jdred.dsp import bands

MAX_GAIN = 1e3
"""Prediction gain (30 dB) at which the recursion stops."""
_COMPENSATION = np.array(
    [0.8, *[1] * 7, 2 / 3, *[1 / 2] * 3, 1 / 3, *[1 / 4] * 2, 1 / 5, 1 / 6, 0.173913]  # one over the band's width
)
_WHITE_NOISE = 1e-4
"""-40 dB of white noise on the autocorrelation's first term, relative ..."""
_NOISE_FLOOR = np.float32([26 / 38] + [0.0] * LPC_ORDER)
"""... and absolute (int16 units squared); from an integer division in the original code."""
_LAG_WINDOW = 6e-5


def _energies_to_autocorrelation() -> np.ndarray:
    """[18, 17]: band energies, spread over the bins, through the inverse DFT, with the lag window: all of it linear."""
    lags, bins = np.arange(LPC_ORDER + 1), np.arange(bands.WINDOW_SAMPLES // 2 + 1)
    twice = np.where(bins == 0, 1.0, 2.0)[:, None]
    inverse_dft = twice * np.cos(2 * np.pi * np.outer(bins, lags) / bands.WINDOW_SAMPLES)
    window = np.where(lags == 0, 1 + _WHITE_NOISE, 1 - _LAG_WINDOW * lags**2)
    return (_COMPENSATION[:, None] * bands.TRIANGLES) @ inverse_dft * window


_AUTOCORRELATION = np.float32(_energies_to_autocorrelation())


class Lattice(NamedTuple):
    """Filters of linear prediction at some order, both padded to one length; shared by Levinson and Burg."""

    forward: Float[Array, "... taps"]
    """``1, a_1, a_2, ...``: the prediction error filter."""
    backward: Float[Array, "... taps"]
    """The same reversed."""

    @classmethod
    def start(cls, batch: tuple[int, ...], order: int) -> "Lattice":
        """Order 0, with room for ``order``."""
        impulse = jnp.zeros((*batch, order + 1)).at[..., 0].set(1.0)
        return cls(impulse, impulse)

    def delayed(self) -> "Lattice":
        """Ready for a reflection: the backward filter one sample later."""
        return self._replace(backward=delay(self.backward))

    def reflect(self, coefficient: Float[Array, "... 1"]) -> "Lattice":
        """One order more."""
        return Lattice(self.forward + coefficient * self.backward, self.backward + coefficient * self.forward)


def delay(x: Float[Array, "... n"]) -> Float[Array, "... n"]:
    """One sample later, a zero first."""
    return jnp.concatenate([jnp.zeros_like(x[..., :1]), x[..., :-1]], axis=-1)


def levinson(autocorrelation: Float[Array, "... lags"]) -> Float[Array, "... order"]:
    """LPC of an autocorrelation, ``order = lags - 1``, by the Levinson recursion in the form of Schur.

    Coefficients beyond the order where the prediction gain passes 30 dB stay zero; a mask keeps shapes static and
    gradients finite. The first term of the autocorrelation must be positive.
    """
    return _recursion(autocorrelation)[0]


def _recursion(
    autocorrelation: Float[Array, "... lags"],
) -> tuple[Float[Array, "... order"], Float[Array, "... order"]]:
    """LPC and reflection coefficients."""
    total, order = autocorrelation[..., :1], autocorrelation.shape[-1] - 1

    def raise_order(carry, _):
        lattice, ahead, error = carry  # correlations of the forward and backward errors with the signal
        ahead = jnp.concatenate([ahead[..., 1:], jnp.zeros_like(total)], axis=-1)
        enough = error[..., :1] * MAX_GAIN < total
        reflection = jnp.where(enough, 0.0, -ahead[..., :1] / error[..., :1])
        carry = lattice.delayed().reflect(reflection), ahead + reflection * error, error + reflection * ahead
        return carry, reflection[..., 0]

    start = Lattice.start(autocorrelation.shape[:-1], order), autocorrelation, autocorrelation
    (lattice, _, _), reflections = jax.lax.scan(raise_order, start, length=order)
    return lattice.forward[..., 1:], jnp.moveaxis(reflections, 0, -1)


def step_up(reflections: Float[Array, "... order"]) -> Float[Array, "... order"]:
    """LPC of reflection coefficients; stable where all are within (-1, 1)."""

    def raise_order(lattice, reflection):
        return lattice.delayed().reflect(reflection[..., None]), None

    start = Lattice.start(reflections.shape[:-1], reflections.shape[-1])
    return jax.lax.scan(raise_order, start, jnp.moveaxis(reflections, -1, 0))[0].forward[..., 1:]


def lpc_from_cepstrum(cepstrum: Float[Array, "... 18"], gamma: float = 1.0) -> Float[Array, "... 16"]:
    """LPC of the smooth spectrum that a cepstrum describes; ``gamma`` as for ``widen``."""
    return widen(levinson(_autocorrelation(cepstrum)), gamma)


def reflections_from_cepstrum(cepstrum: Float[Array, "... 18"]) -> Float[Array, "... 16"]:
    """Reflection coefficients of the smooth spectrum that a cepstrum describes."""
    return _recursion(_autocorrelation(cepstrum))[1]


def _autocorrelation(cepstrum: Float[Array, "... 18"]) -> Float[Array, "... 17"]:
    energies = 10 ** bands.log_energies_from_cepstrum(cepstrum)
    return energies @ _AUTOCORRELATION + _NOISE_FLOOR


def widen(a: Float[Array, "... order"], gamma: float) -> Float[Array, "... order"]:
    """``gamma`` < 1 widens the bandwidths: ``a_j *= gamma**j``."""
    return a * np.float32(gamma ** np.arange(1, a.shape[-1] + 1))


def predict(a: Float[Array, "... order"], signal: Float[Array, "... order_plus_n"]) -> Float[Array, "... n"]:
    """``-sum a_j s[n-j]`` for every sample that has ``order`` others before it, and for the one after the last.

    A signal of exactly ``order`` samples gives the one prediction that follows it.
    """
    order = a.shape[-1]
    count = signal.shape[-1] - order + 1
    return -sum(a[..., j : j + 1] * signal[..., order - 1 - j : order - 1 - j + count] for j in range(order))


def predict_by_frame(
    a: Float[Array, "... frames order"], signal: Float[Array, "... order_plus_n"]
) -> Float[Array, "... n"]:
    """``predict`` of the n samples after the first ``order``, with coefficients of each of equally long frames."""
    frames, order = a.shape[-2:]
    length = (signal.shape[-1] - order) // frames
    begins = range(0, frames * length, length)
    pasts = jnp.stack([signal[..., n : n + order + length - 1] for n in begins], axis=-2)
    return predict(a, pasts).reshape(*signal.shape[:-1], -1)


def residual(a: Float[Array, "... order"], signal: Float[Array, "... order_plus_n"]) -> Float[Array, "... n"]:
    """``s + sum a_j s[n-j]`` for every sample that has ``order`` others before it."""
    return signal[..., a.shape[-1] :] - predict(a, signal[..., :-1])
