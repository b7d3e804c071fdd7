"""Features to samples. Every vocoder keeps the protocol below, so that the concealer does not care which one speaks."""

from typing import NamedTuple, Protocol, TypeVar

from jaxtyping import Array, Float, Int

State = TypeVar("State")


class VocoderInput(NamedTuple):
    """One 10 ms step of a vocoder."""

    features: Float[Array, "... 20"]
    """Row k of ``dsp.features``: it is centred on sample 160 k, so the step speaks samples [160 k - 80, 160 k + 80)."""
    uniforms: Float[Array, "... 160 8"]
    """Uniform numbers in [0, 1) for the sampling of each sample; a deterministic vocoder ignores them."""


class Vocoder(Protocol[State]):
    """A streaming part that turns feature rows into 10 ms of speech, PCM in [-1, 1]."""

    prime_frames: int
    """Rows (10 ms each) of real past that bring the state up to date before speaking."""

    def init_state(self) -> State:
        """The state of one stream that has said nothing yet."""

    def step(self, state: State, x: VocoderInput) -> tuple[State, Float[Array, "... 160"]]:
        """Speak one row."""

    def prime(
        self, state: State, x: VocoderInput, pcm: Float[Array, "... 160"], count: Int[Array, "..."]
    ) -> tuple[State, Float[Array, "... 160"]]:
        """Speak one row whose first ``count`` samples are known: they are forced, the others follow from them."""
