"""PCM to packets: Opus for the present, redundancy for the past.

The redundancy describes what the receiver's Opus decoder would have played, so its analysis runs behind the input by
the codec's delay and rows fall on packet boundaries of the decoded sound: the payload of packet n holds rows up to
2 n + 1, whose centre lies 10 ms after the packet's first sample. libopus's rows fall in between (``bitstream.wire``).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdred.bitstream import activity
from jdred.bitstream.payload import Header, level_schedule
from jdred.bitstream.wire import JDRED
from jdred.config import (
    CHUNK_FRAMES,
    CHUNK_PACKETS,
    FRAME_SAMPLES,
    HISTORY_LATENTS,
    MAX_CHUNKS,
    PACKET_FRAMES,
    PACKET_SAMPLES,
    SenderConfig,
)
from jdred.dsp.features import EXTRACTOR, FeatureExtractor, FeatureState
from jdred.models import Models
from jdred.opus import codec
from jdred.opus.marker import attach_redundancy
from jdred.rdovae import RDOVAE
from jdred.rdovae.encoder import EncoderState
from jdred.streaming import scan

CHUNK_MS = 10 * CHUNK_FRAMES


class SenderState(NamedTuple):
    """What the redundancy of one stream needs of its past. The newest entry of a history comes first."""

    features: FeatureState
    encoder: EncoderState
    latents: Float[Array, "52 latent"]
    states: Float[Array, "52 state"]
    active: Bool[Array, "52"]
    filled: Int[Array, ""]
    """Latents in the history so far."""
    skipped: Int[Array, ""]
    """Silent latents that the last plan left out at the new end."""
    number: Int[Array, ""]
    """Of the next packet, modulo the number of packets of which one reaches far."""


class Settings(NamedTuple):
    """What of ``SenderConfig`` the redundancy heeds, as values: to change them compiles nothing anew."""

    chunks: Int[Array, ""]
    every: Int[Array, ""]
    between: Int[Array, ""]
    """Chunks of the packets between."""
    level: Int[Array, ""]
    slope: Int[Array, ""]
    max_level: Int[Array, ""]
    activity_dbfs: Float[Array, ""]


class Redundancy(NamedTuple):
    """What a payload will say; symbols beyond ``chunks`` do not count."""

    header: Header
    state: Int[Array, "state"]
    latents: Int[Array, "26 latent"]
    chunks: Int[Array, ""]
    """0: nothing to send."""


def init_state(rdovae: RDOVAE, extractor: FeatureExtractor = EXTRACTOR) -> SenderState:
    """A stream that has sent nothing."""
    encoder = rdovae.encoder.init_state()
    zero = jnp.zeros((), jnp.int32)
    return SenderState(
        features=extractor.init_state(),
        encoder=encoder,
        latents=jnp.zeros((HISTORY_LATENTS, rdovae.config.latent_dim)),
        states=jnp.zeros((HISTORY_LATENTS, rdovae.config.state_dim)),
        active=jnp.zeros(HISTORY_LATENTS, bool),
        filled=zero,
        skipped=zero,
        number=zero,
    )


def settings(config: SenderConfig) -> Settings:
    """Those of a configuration."""
    chunks, between = config.dred_duration_ms // CHUNK_MS, config.dred_between_ms // CHUNK_MS
    numbers = (chunks, config.dred_every, between, config.level, config.slope, config.max_level)
    return Settings(*map(np.int32, numbers), np.float32(config.activity_dbfs))


def step(
    rdovae: RDOVAE,
    settings: Settings,
    state: SenderState,
    pcm: Float[Array, "320"],
    extractor: FeatureExtractor = EXTRACTOR,
    newest_offset: int = JDRED.newest_offset,
) -> tuple[SenderState, Redundancy]:
    """Describe one more packet and plan its redundancy. Constant work, whatever the duration.

    ``newest_offset`` is the wire's.
    """
    features, rows = scan(extractor, state.features, pcm.reshape(PACKET_FRAMES, FRAME_SAMPLES))
    encoder, encoded = rdovae.encoder.step(state.encoder, rows.reshape(-1))
    chunks = jnp.where(state.number == 0, settings.chunks, settings.between)
    active = _push(state.active, 10 * jnp.log10(jnp.mean(pcm**2) + 1e-12) > settings.activity_dbfs)
    state = SenderState(
        features=features,
        encoder=encoder,
        latents=_push(state.latents, encoded.latent),
        states=_push(state.states, encoded.state),
        active=active,
        filled=jnp.minimum(state.filled + 1, HISTORY_LATENTS),
        skipped=state.skipped,
        number=(state.number + 1) % settings.every,
    )
    plan = activity.plan(
        jnp.repeat(active, activity.FLAGS_PER_PACKET),
        state.filled,
        chunks,
        jnp.asarray(newest_offset),
        previously_skipped=state.skipped,
    )
    return state._replace(skipped=plan.skipped), quantize(rdovae, settings, state, plan)


def _push(history: Array, new: Array) -> Array:
    return jnp.concatenate([new[None], history[:-1]])


def quantize(rdovae: RDOVAE, settings: Settings, state: SenderState, plan: activity.Plan) -> Redundancy:
    """Symbols of the planned part of the history, every second latent, coarser with age."""
    level, slope, top = settings.level, settings.slope, settings.max_level
    at = jnp.minimum(plan.start + CHUNK_PACKETS * jnp.arange(MAX_CHUNKS), HISTORY_LATENTS - 1)
    newest = jnp.minimum(plan.start, HISTORY_LATENTS - 1)
    latents, coded = rdovae.quantize(state.latents[at], state.states[newest], level_schedule(level, slope, top))
    return Redundancy(Header(level, slope, top, plan.offset.astype(jnp.int32)), coded, latents, plan.chunks)


_step = jax.jit(step, static_argnames="newest_offset")


class Sender:
    """One talking end: 20 ms of PCM in, one Opus packet out. Owns its libopus encoder and the redundancy's state."""

    def __init__(self, models: Models, config: SenderConfig = SenderConfig()):
        """Raises ``OpusError`` where there is no libopus, ``ValueError`` for a bit rate that it refuses."""
        self._opus = codec.Encoder(complexity=config.complexity)
        self.delay_samples = self._opus.lookahead
        """By so much decoded sound comes late."""
        self._models, self._payload = models, models.payloads
        options = {"extractor": models.extractor, "newest_offset": models.wire.newest_offset}
        self._step = partial(_step, models.rdovae, **options)
        self._forget()
        self.config = config
        self.adapt(config)

    def _forget(self) -> None:
        """Begin to listen."""
        behind = self._models.wire.delay_samples
        self._late = np.zeros(self.delay_samples if behind is None else behind, np.float32)
        self._state = init_state(self._models.rdovae, self._models.extractor)

    def adapt(self, config: SenderConfig) -> None:
        """Go on in another way from the next packet on; complexity stays as it was.

        Without redundancy nothing is listened to, so that redundancy which comes anew begins with no past.

        Raises:
          ValueError: a bit rate that libopus refuses; nothing has changed then.
        """
        self._opus.adapt(
            bitrate_bps=config.bitrate_bps + config.lbrr_bps,
            lbrr=config.lbrr_bps > 0,
            loss_percent=round(100 * config.expected_loss),
        )
        if self.config.dred_duration_ms == 0:
            self._forget()
        self.config, self._settings = config, settings(config)

    def send(self, pcm: Float[np.ndarray, "320"]) -> bytes:
        """Encode 20 ms of mono PCM in [-1, 1] at 16 kHz.

        Raises:
          ValueError: another length or type, or samples that are not finite.
        """
        pcm = np.asarray(pcm)
        if pcm.shape != (PACKET_SAMPLES,):
            raise ValueError(f"a packet holds {PACKET_SAMPLES} samples (20 ms at 16 kHz), found shape {pcm.shape}")
        packet = self._opus.encode(pcm)
        if self.config.dred_duration_ms == 0:
            return packet
        delayed = np.concatenate([self._late, np.asarray(pcm, np.float32)])
        self._late = delayed[PACKET_SAMPLES:]
        self._state, redundancy = self._step(self._settings, self._state, delayed[:PACKET_SAMPLES])
        chunks = int(redundancy.chunks)
        if chunks == 0:
            return packet
        data = self._payload.encode(redundancy.header, redundancy.state, redundancy.latents, chunks)
        return attach_redundancy(packet, data, self._payload.wire) if data else packet
