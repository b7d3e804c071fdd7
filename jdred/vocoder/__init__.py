"""Features to samples. Every vocoder keeps the protocol below, so that the concealer does not care which one speaks."""

from typing import NamedTuple, Protocol, TypeVar

from jaxtyping import Array, Float

State = TypeVar("State")


class VocoderInput(NamedTuple):
    """One 10 ms step of a vocoder."""

    features: Float[Array, "... 20"]
    """Row k of ``dsp.features``."""
    uniforms: Float[Array, "... 160 8"]
    """Uniform numbers in [0, 1) for the sampling of each sample; a deterministic vocoder ignores them."""


class Vocoder(Protocol[State]):
    """A streaming part that turns feature rows into 10 ms of speech, PCM in [-1, 1].

    Row k is centred on sample 160 k, and its sound is [160 k - 80, 160 k + 80). Works with batch axes, as in ``step``
    and ``prime``, and under vmap.
    """

    prime_rows: int
    """Rows (10 ms each) of real past, before the one that the boundary halves, that ``prime`` hears."""
    lookahead_rows: int
    """Rows after the one it speaks that the vocoder is given first."""
    floor: float
    """Lowest c_0 that a prediction fades to (digital silence is -12.5)."""

    def init_state(self) -> State:
        """The state of one stream that has said nothing yet."""

    def step(self, state: State, x: VocoderInput) -> tuple[State, Float[Array, "... 160"]]:
        """Take row k, speak row ``k - lookahead_rows``."""

    def prime(
        self, features: Float[Array, "rows ... 20"], pcm: Float[Array, "... known"], uniforms: Float[Array, "... 160 8"]
    ) -> tuple[State, Float[Array, "... 80"]]:
        """Hear a real past that ends before sample 160 K, in the middle of row K, and speak the rest of that row.

        Args:
          features: rows ``K - prime_rows`` .. ``K + lookahead_rows``.
          pcm: the ``160 * prime_rows + 80`` samples before sample 160 K.
          uniforms: of row K; the second half serves.
        Returns:
          the state after row K, from ``init_state``, and the second half of row K.
        """
