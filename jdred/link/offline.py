"""Many received streams at once, as ``Receiver`` would play them, for experiments.

A ``Receiver`` goes through each stream's packets, decodes, and chooses each packet's source, but what its networks
should do is only noted. Then all streams are played side by side in one compiled scan: every slot costs one ``good``
of all streams, and one ``conceal`` of the streams that lost it. With ``config.splice`` what is decoded after a gap
depends on what the networks said in it, and streams are played one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jdred.config import FRAME_SAMPLES, PACKET_SAMPLES, ReceiverConfig
from jdred.link.receiver import Described, Receiver, Source, gap_rows
from jdred.models import Models
from jdred.plc.concealer import SPOKEN_ROWS, Concealer, ConcealerState

_LANES = 8
"""The number of streams concealed side by side is rounded up to a multiple, so that few sizes are compiled."""


class Heard(NamedTuple):
    """One stream as played, the codec's delay still in it."""

    pcm: Float[np.ndarray, "samples"]
    sources: list[Source]


class _Gap(NamedTuple):
    """What a lost packet is spoken from; see ``Concealer.conceal``."""

    rows: Float[np.ndarray, "rows 20"]
    known: Bool[np.ndarray, "rows"]


_gap_rows = jax.jit(gap_rows, static_argnums=2)


class _Notes(Receiver):
    """A receiver that notes what it would have its concealer do, and plays silence in gaps."""

    def __init__(self, models: Models, config: ReceiverConfig):
        super().__init__(models, replace(config, splice=False))
        self.slots: list[np.ndarray | _Gap] = []
        self.sources: list[Source] = []
        self._count = models.concealer.conceal_rows
        self._good, self._conceal = self._note_sound, self._note_gap

    def _note_sound(self, state: PyTree, pcm: np.ndarray) -> tuple[PyTree, np.ndarray]:
        self.slots.append(np.asarray(pcm, np.float32))
        return state, pcm

    def _note_gap(self, state: PyTree, described: Described, distance: np.int32, _key: Array, _number: np.int32):
        gap = _Gap(*map(np.asarray, _gap_rows(described, distance, self._count)))
        self.slots.append(gap)
        return state, np.zeros(PACKET_SAMPLES, np.float32), gap.known[:SPOKEN_ROWS].any()

    def listen(self, arrived: Sequence[bytes | None]) -> "_Notes":
        """Go through a whole stream."""
        for packet in arrived:
            self.push(packet)
            self.sources += self.last_sources
        while self.waiting:
            self.drain()
            self.sources += self.last_sources
        return self


class _Slots(NamedTuple):
    """What happens in every 20 ms; time first. A lane is a place for a stream that lost the packet."""

    number: Int[Array, "slots"]
    pcm: Float[Array, "slots streams 320"]
    """Of streams that did not lose it."""
    stream: Int[Array, "slots lanes"]
    """Whose lane it is; the number of streams where nobody's."""
    rows: Float[Array, "slots lanes rows 20"]
    known: Bool[Array, "slots lanes rows"]


def receive_all(
    models: Models,
    streams: Sequence[Sequence[bytes | None]],
    config: ReceiverConfig = ReceiverConfig(),
    on_stream: Callable[[], None] = lambda: None,
) -> list[Heard]:
    """Play streams of packets, None = lost: what a ``Receiver`` each would play, to rounding.

    Args:
      on_stream: called after each stream's packets are decoded, for progress.
    Raises:
      ValueError: no streams.
    """
    if not streams:
        raise ValueError("expected streams of packets, found none")
    if config.splice:
        return [_receive(models, arrived, config, on_stream) for arrived in streams]
    notes = []
    for arrived in streams:
        notes.append(_Notes(models, config).listen(arrived))
        on_stream()
    concealer = models.concealer
    played = np.asarray(_play(concealer, _gather([n.slots for n in notes], concealer), jax.random.key(config.seed)))
    return [
        Heard(played[: len(n.slots), number].reshape(-1), n.sources) for number, n in enumerate(notes)
    ]  # fmt: skip


def _receive(
    models: Models, arrived: Sequence[bytes | None], config: ReceiverConfig, on_stream: Callable[[], None]
) -> Heard:
    """One stream by itself."""
    receiver, pieces, sources = Receiver(models, config), [], []
    for packet in arrived:
        pieces.append(receiver.push(packet))
        sources += receiver.last_sources
    while receiver.waiting:
        pieces.append(receiver.drain())
        sources += receiver.last_sources
    on_stream()
    return Heard(np.concatenate(pieces), sources)


def _gather(streams: list[list[np.ndarray | _Gap]], concealer: Concealer) -> _Slots:
    """Streams of any length side by side; the shorter ones end in silence."""
    slots, count = max(map(len, streams)), len(streams)
    gaps = [[(n, s[t]) for n, s in enumerate(streams) if t < len(s) and isinstance(s[t], _Gap)] for t in range(slots)]
    lanes = -(-max(map(len, gaps)) // _LANES) * _LANES
    pcm = np.zeros((slots, count, PACKET_SAMPLES), np.float32)
    for number, stream in enumerate(streams):
        for t, slot in enumerate(stream):
            if not isinstance(slot, _Gap):
                pcm[t, number] = slot
    owner = np.full((slots, lanes), count, np.int32)
    rows = np.zeros((slots, lanes, concealer.conceal_rows, 20), np.float32)
    known = np.zeros(rows.shape[:-1], bool)
    for t, lost in enumerate(gaps):
        for lane, (number, gap) in enumerate(lost):
            owner[t, lane], rows[t, lane], known[t, lane] = number, gap.rows, gap.known
    return _Slots(np.arange(slots, dtype=np.int32), pcm, owner, rows, known)


@jax.jit
def _play(concealer: Concealer, slots: _Slots, key: Key[Array, ""]) -> Float[Array, "slots streams 320"]:
    streams = slots.pcm.shape[1]

    def body(states: ConcealerState, slot: _Slots) -> tuple[ConcealerState, Array]:
        uniforms = jax.random.uniform(jax.random.fold_in(key, slot.number), (SPOKEN_ROWS, FRAME_SAMPLES, 8))
        after, played = jax.vmap(concealer.good)(states, slot.pcm)
        if slot.stream.shape[0] == 0:
            return after, played
        before = jax.tree.map(lambda a: jnp.take(a, slot.stream, axis=0, mode="clip"), states)
        conceal = jax.vmap(partial(concealer.conceal, uniforms=uniforms))
        concealed, spoken = conceal(before, slot.rows, slot.known)

        def put(all_streams: Array, lanes: Array) -> Array:
            return all_streams.at[slot.stream].set(lanes, mode="drop")

        return jax.tree.map(put, after, concealed), put(played, spoken)

    states = jax.tree.map(lambda a: jnp.broadcast_to(a, (streams, *jnp.shape(a))), concealer.init_state())
    return jax.lax.scan(body, states, slots)[1]
