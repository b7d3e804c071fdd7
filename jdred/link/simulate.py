"""The link as one pure function: no libopus, any number of streams under ``vmap``, gradients from waveform to waveform.

Packets that arrive carry the signal as it is (or as ``received`` gives it); the redundancy passes features, encoder,
quantiser, loss, decoder and vocoder exactly as over real packets.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jdred.bitstream.payload import level_schedule
from jdred.config import (
    CHUNK_FRAMES,
    CHUNK_PACKETS,
    FRAME_SAMPLES,
    MAX_CHUNKS,
    PACKET_FRAMES,
    PACKET_SAMPLES,
    ReceiverConfig,
    SenderConfig,
)
from jdred.dsp.features import EXTRACTOR, FeatureExtractor, extract
from jdred.link.redundancy import Described, gap_rows, reaches
from jdred.link.sender import CHUNK_MS
from jdred.models import Models
from jdred.plc.concealer import SPOKEN_ROWS, ConcealerInput
from jdred.rdovae import RDOVAE, DecoderInput
from jdred.rdovae.quantizer import compress, dequantize, pvq, round_straight_through

GOOD, DRED, PLC = 0, 1, 2


class Simulated(NamedTuple):
    """One stream as heard."""

    pcm: Float[Array, "samples"]
    source: Int[Array, "packets"]
    """0 received, 1 redundancy, 2 prediction."""


def simulate(
    models: Models,
    pcm: Float[Array, "samples"],
    lost: Bool[Array, "packets"],
    key: Key[Array, ""],
    sender: SenderConfig = SenderConfig(),
    receiver: ReceiverConfig = ReceiverConfig(),
    received: Float[Array, "samples"] | None = None,
) -> Simulated:
    """Send one stream through loss and repair it.

    Args:
      pcm: what is said, whole packets of 320 samples in [-1, 1].
      lost: which packets do not arrive.
      key: of the vocoder's sampling; consumed.
      sender, receiver: duration, levels and playout delay; static.
      received: what the speech codec makes of ``pcm``; itself by default.
    """
    packets = lost.shape[0]
    described = redundancy(models.rdovae, pcm, sender, models.extractor)
    concealer = models.concealer
    between = CHUNK_FRAMES * (sender.dred_between_ms // CHUNK_MS)
    rows, known = repairs(described, lost, receiver, concealer.conceal_rows, between)
    uniforms = jax.random.uniform(key, (packets, SPOKEN_ROWS, FRAME_SAMPLES, 8))
    arrived = (pcm if received is None else received).reshape(packets, PACKET_SAMPLES)
    xs = ConcealerInput(arrived, lost, rows, known, uniforms)
    _, played = jax.lax.scan(concealer.step, concealer.init_state(), xs)
    return Simulated(played.reshape(-1), sources(lost, known))


def repairs(
    described: Described, lost: Bool[Array, "packets"], receiver: ReceiverConfig, count: int, between: int = 0
) -> tuple[Float[Array, "packets count 20"], Bool[Array, "packets count"]]:
    """For each lost packet the ``count`` feature rows that it is spoken from, and which are known.

    Args:
      described: what each packet says, a leading packet axis.
      receiver: static.
      between: rows that packets have which do not reach far; see ``SenderConfig.dred_every``.
    """
    delay = lost.shape[0] if receiver.offline else -(-receiver.playout_delay_ms // 20)
    near, far = (carriers(lost | (described.count <= least), delay) for least in (0, between))
    (at, distance), (later, farther) = near, far

    def in_reach(carrier: Array, distance: Array) -> Array:
        told = jax.tree.map(lambda a: a[carrier], described)
        return (distance > 0) & reaches(told, PACKET_FRAMES * distance)

    use_far = ~in_reach(*near) & in_reach(*far)
    carrier, distance = jnp.where(use_far, later, at), jnp.where(use_far, farther, distance)

    def rows_of(carrier: Array, distance: Array):
        told = jax.tree.map(lambda a: a[carrier], described)
        rows, known = gap_rows(told, PACKET_FRAMES * distance, count)
        return rows, known & (distance > 0) & receiver.use_dred

    return jax.vmap(rows_of)(carrier, distance)


def sources(lost: Bool[Array, "packets"], known: Bool[Array, "packets count"]) -> Int[Array, "packets"]:
    """GOOD, DRED or PLC for each packet, by what ``repairs`` knows."""
    return jnp.where(lost, jnp.where(jnp.any(known[:, :SPOKEN_ROWS], axis=-1), DRED, PLC), GOOD)


def redundancy(
    rdovae: RDOVAE, pcm: Float[Array, "samples"], config: SenderConfig, extractor: FeatureExtractor = EXTRACTOR
) -> Described:
    """What every packet's redundancy says, all packets at once; quantised with a straight-through gradient.

    Leaves of the result have a leading packet axis. Silence is not left out here.
    """
    rows = extract(pcm, extractor)
    _, encoded = rdovae.encoder.scan(rdovae.encoder.init_state(), rows.reshape(-1, PACKET_FRAMES * rows.shape[-1]))
    packets = encoded.latent.shape[0]
    levels = level_schedule(*(jnp.asarray(v) for v in (config.level, config.slope, config.max_level)))
    steps = jnp.arange(packets)[None] - CHUNK_PACKETS * jnp.arange(MAX_CHUNKS)[:, None]

    def quantized(z: Array, at) -> Array:
        return dequantize(round_straight_through(compress(z, at)), at)

    at = jax.tree.map(lambda a: a[:, None], rdovae.latent_quantizer.at(levels))
    latents = quantized(encoded.latent[jnp.maximum(steps, 0)], at)
    pulses = rdovae.config.pvq_pulses
    at = rdovae.state_quantizer.at(levels[0])
    state = pvq(encoded.state, pulses) if pulses else quantized(encoded.state, at)
    level = jnp.broadcast_to(levels[:, None], steps.shape)
    _, decoded = rdovae.decoder.scan(rdovae.decoder.start(state), DecoderInput(latents, level))
    decoded = jnp.moveaxis(decoded, 1, 0).reshape(packets, MAX_CHUNKS * CHUNK_FRAMES, -1)
    is_far = jnp.arange(packets) % config.dred_every == 0
    wanted = jnp.where(is_far, config.dred_duration_ms // CHUNK_MS, config.dred_between_ms // CHUNK_MS)
    available = jnp.minimum(wanted, (jnp.arange(packets) + CHUNK_PACKETS) // CHUNK_PACKETS)
    return Described(decoded, CHUNK_FRAMES * available, jnp.ones(packets, jnp.int32))


def carriers(lost: Bool[Array, "packets"], delay: int) -> tuple[Int[Array, "packets"], Int[Array, "packets"]]:
    """For each lost packet the next that arrives, and how far on it is; distance 0: none comes within ``delay``."""
    packets = lost.shape[0]

    def back(following: Array, x: tuple[Array, Array]):
        number, gone = x
        return jnp.where(gone, following, number), following

    numbers = jnp.arange(packets)
    _, following = jax.lax.scan(back, jnp.asarray(packets + delay + 1), (numbers, lost), reverse=True)
    distance = following - numbers
    usable = (distance <= delay) & (following < packets)
    return jnp.where(usable, following, 0), jnp.where(usable, distance, 0)
