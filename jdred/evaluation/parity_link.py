"""How near a link of ours comes to libopus's own: packets read and written, the sender's choices, gaps repaired.

Continues ``evaluation.parity``; the figures of what is not a network are counts of differences.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jdred.bitstream import activity
from jdred.bitstream.payload import Header, Payload, level_schedule
from jdred.config import CHUNK_PACKETS, FRAME_SAMPLES, HISTORY_LATENTS, MAX_CHUNKS, PACKET_FRAMES, ReceiverConfig
from jdred.dsp import INT16_SCALE
from jdred.dsp.features import extract
from jdred.evaluation import metrics
from jdred.evaluation.parity import Data, Figure, relative
from jdred.link.receiver import Receiver
from jdred.models import Models
from jdred.opus.marker import find_redundancy

_OFFSET_SAMPLES = 40
_CHUNK_SAMPLES = 640


def packets_of(data: Data, stream: str) -> list[bytes]:
    """The packets of a stream in a golden file."""
    whole, places = data[f"{stream}/bytes"].tobytes(), data[f"{stream}/offsets"]
    return [whole[start:stop] for start, stop in zip(places[:-1], places[1:], strict=True)]


def streams(data: Data) -> list[str]:
    """Names of all streams with redundancy in ``packets.npz``."""
    return sorted(key[: -len("/state_symbols")] for key in data if key.endswith("/state_symbols"))


def packets(models: Models, data: Data) -> Iterator[Figure]:
    """What libopus's packets say, field by field, and the same said by us, byte by byte; ``packets.npz``.

    Last chunks of fewer than 8 bits are lost on libopus; we read them, and they are what was sent: the bytes agree.
    """
    payloads, columns = models.payloads, list(map(str, data["info_columns"]))
    for stream in streams(data):
        wrong = dict.fromkeys(("presence", "header", "coverage", "symbols", "bytes"), 0)
        beyond = 0
        for number, packet in enumerate(packets_of(data, stream)):
            told = dict(zip(columns, map(int, data[f"{stream}/info"][number]), strict=True))
            found = find_redundancy(packet, models.wire)
            wrong["presence"] += (found is None) != (told["dred_ext_bytes"] == 0)
            if found is None:
                continue
            got, chunks = payloads.decode(found), told["chunks_in_payload"]
            extra = int(got.chunks) - chunks
            beyond = max(beyond, *(got.eighths[1 + chunks : 2 + int(got.chunks)] - got.eighths[1 + chunks]) / 8)
            offset = int(got.header.offset)
            covered = max(0, _CHUNK_SAMPLES * (int(got.chunks) - extra) - _OFFSET_SAMPLES * offset)
            wrong["header"] += _header(got) != (told["q0"], told["dQ"], told["qmax"], told["parse_dred_offset"])
            wrong["coverage"] += (covered, max(0, -_OFFSET_SAMPLES * offset)) != (
                told["parse_samples"],
                told["parse_end"],
            )
            symbols = (data[f"{stream}/{part}_symbols"][number] for part in ("state", "latent"))
            wrong["symbols"] += not _same_symbols(got, *symbols, chunks) or extra < 0
            again = payloads.encode(got.header, got.state, got.latents, int(got.chunks))
            wrong["bytes"] += again != found or models.wire.letter + again not in packet
        for what, count in wrong.items():
            yield Figure(f"packets with other {what}", stream, count, 0)
        yield Figure("most bits read that libopus leaves", stream, beyond, 8)


def _header(got: Payload) -> tuple[int, ...]:
    return tuple(map(int, got.header))


def _same_symbols(got: Payload, state: np.ndarray, latents: np.ndarray, chunks: int) -> bool:
    return np.array_equal(got.state, state) and np.array_equal(got.latents[:chunks], latents[:chunks])


def odd_packets(models: Models, data: Data) -> Iterator[Figure]:
    """Packets with another version, letter or id, and damaged ones: what counts as redundancy; ``packets.npz``."""
    sizes = data["odd/values"][:, 0]
    starts = np.cumsum(sizes) - sizes
    for name, row, start in zip(map(str, data["odd/names"]), data["odd/values"], starts, strict=True):
        found = find_redundancy(data["odd/bytes"][start : start + row[0]].tobytes(), models.wire)
        valid = found is not None and bool(models.payloads.decode(found).valid)
        yield Figure("redundancy where libopus sees none, or none where it does", name, int(valid != (row[1] > 0)), 0)


def sender_networks(models: Models, data: Data) -> Iterator[Figure]:
    """What the sender's analysis makes of the sound that libopus's encoder gave to its own; ``packets.npz``.

    From sound on, so that pitches of unvoiced frames that jump count, too.
    """
    encoder = models.rdovae.encoder

    @jax.jit
    def encode(pcm: Float[Array, "samples"]):
        rows = extract(pcm, models.extractor)
        return encoder.scan(encoder.init_state(), rows.reshape(-1, PACKET_FRAMES * rows.shape[-1]))[1]

    for clip in sorted(key[: -len("/dred_input")] for key in data if key.endswith("/dred_input")):
        heard = np.pad(np.round(data[f"{clip}/dred_input"] * INT16_SCALE), (models.wire.delay_samples, 0))
        count = len(data[f"{clip}/dred_latents"])
        encoded = encode(jnp.asarray(heard[: count * PACKET_FRAMES * FRAME_SAMPLES] / np.float32(INT16_SCALE)))
        for part, allowed in (("latent", 0.05), ("state", 0.02)):
            wanted = data[f"{clip}/dred_{part}s"]
            yield Figure(f"sender's {part}s, relative error", clip, relative(getattr(encoded, part), wanted), allowed)


def sender_choices(models: Models, data: Data) -> Iterator[Figure]:
    """From libopus's latents and activity to its packets, byte by byte; ``packets.npz``.

    With two faults of libopus's put in, which are not ours: of an odd history the oldest latent is not sent, and at an
    onset the silence that was skipped before is left out of the offset.
    """
    columns = list(map(str, data["encoder_info_columns"]))
    for stream in (name for name in streams(data) if f"{name}/encoder_info" in data):
        wrong = skipped = 0
        for number, packet in enumerate(packets_of(data, stream)):
            info = dict(zip(columns, map(int, data[f"{stream}/encoder_info"][number]), strict=True))
            if not info["payload_called"]:
                continue
            newest_first = slice(number, None if number < HISTORY_LATENTS else number - HISTORY_LATENTS, -1)
            plan = _plan(data[f"{stream}/activity"][newest_first] == 1, info, skipped)
            sent = _send(models, data, stream.split("/")[0], number, plan, info)
            wrong += sent != (find_redundancy(packet, models.wire) or b"")
            skipped = int(plan.skipped)
        yield Figure("packets that we would write otherwise", stream, wrong, 0)


_plan_compiled = jax.jit(activity.plan)
_levels = jax.jit(level_schedule)


def _plan(active: Bool[np.ndarray, "packets"], info: dict[str, int], skipped: int) -> activity.Plan:
    """libopus's plan for activity by packet, newest first."""
    flags = np.repeat(np.pad(active, (0, HISTORY_LATENTS - len(active))), activity.FLAGS_PER_PACKET)

    def plan(filled: int) -> activity.Plan:
        numbers = (filled, info["max_chunks"], info["dred_offset"], info["latent_offset"], skipped)
        return _plan_compiled(flags, *map(np.int32, numbers))

    start = int(plan(info["latents_fill"]).start)
    chosen = plan(info["latents_fill"] - (info["latents_fill"] - start) % 2)
    onset = skipped > 0 and active[0]
    return chosen._replace(offset=chosen.offset + activity.FLAGS_PER_PACKET * skipped) if onset else chosen


def _send(models: Models, data: Data, clip: str, number: int, plan: activity.Plan, info: dict[str, int]) -> bytes:
    """The payload of a plan, from libopus's latents; none where it says so."""
    if not int(plan.chunks):
        return b""
    header = Header(info["q0"], info["dQ"], info["qmax"], int(plan.offset))
    steps = np.maximum(number - int(plan.start) - CHUNK_PACKETS * np.arange(MAX_CHUNKS), 0)
    levels = _levels(*map(np.int32, header[:3]))
    latents, state = data[f"{clip}/dred_latents"][steps], data[f"{clip}/dred_states"][steps[0]]
    latents, state = _quantize(models.rdovae, latents, state, levels)
    return models.payloads.encode(header, state, latents, int(plan.chunks), info["max_bytes"] + 1)


_quantize = jax.jit(lambda rdovae, latents, state, levels: rdovae.quantize(latents, state, levels))


def repairs(models: Models, data: Data, sent: Data, stream: str = "40k_fec0_dred100") -> Iterator[Figure]:
    """Golden loss traces repaired from libopus's packets; ``receive.npz`` and ``packets.npz``.

    ESTOI of what we play against that of what libopus played.
    """
    late = int(data["lookahead_samples"])
    ends = f"/{stream}_cx5/pcm_out"
    for clip, trace in (key[: -len(ends)].split("/") for key in sorted(data) if key.endswith(ends)):
        if trace == "none":
            continue
        lost = data[f"{clip}/{trace}/lost"]
        said = sent[f"{clip}/pcm"] / np.float32(INT16_SCALE)
        ours = _play(models, packets_of(sent, f"{clip}/{stream}"), lost)
        theirs = data[f"{clip}/{trace}{ends}"] / np.float32(INT16_SCALE)
        ours, theirs = (metrics.estoi(said[: len(x) - late], x[late:]) for x in (ours, theirs))
        yield Figure(f"{trace}: ESTOI below libopus's {theirs:.3f}", clip, theirs - ours, 0.01)


def _play(models: Models, packets: list[bytes], lost: np.ndarray) -> Float[np.ndarray, "samples"]:
    receiver = Receiver(models, ReceiverConfig())
    pieces = [receiver.push(None if gone else packet) for packet, gone in zip(packets, lost, strict=True)]
    while receiver.waiting:
        pieces.append(receiver.drain())
    return np.concatenate(pieces)


PACKETS = (packets, odd_packets, sender_networks, sender_choices)
"""Comparisons with ``packets.npz``."""
