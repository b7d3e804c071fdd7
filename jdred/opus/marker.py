"""How a packet says that it carries redundancy, and whose.

The payload travels as an extension with the experimental id of libopus's DRED, 126, because libopus and its relatives
are known to skip what they do not know there. Two bytes stand before the symbols: a letter and a version, libopus's own
``D`` and 12. Ours is another letter because our networks are not libopus's: its decoder would turn our symbols into
noise, and so must not take them for its own. The letter is put here; the version byte is the payload's first and
``bitstream.codec`` reads it: unknown versions are no redundancy.
"""

from jdred.bitstream.wire import JDRED, Wire
from jdred.opus import extension

EXTENSION_ID = 126


def attach_redundancy(packet: bytes, payload: bytes, wire: Wire = JDRED) -> bytes:
    """The packet with a payload of ``bitstream.codec`` in its padding. Raises ``PacketError``."""
    return extension.attach(packet, EXTENSION_ID, wire.letter + payload)


def locate_redundancy(packet: bytes, wire: Wire = JDRED) -> tuple[int, bytes] | None:
    """The payload under a wire's letter, without it, and the Opus frame it belongs to; None where there is none.

    Of several it is the first of the wire's version, or the first of all where none is. Never raises.
    """
    everything = extension.find(packet, EXTENSION_ID)
    found = [(frame, payload[1:]) for frame, payload in everything if payload[:1] == wire.letter]
    readable = (each for each in found if each[1] and wire.announced(each[1][0]) is not None)
    return next(readable, found[0] if found else None)


def find_redundancy(packet: bytes, wire: Wire = JDRED) -> bytes | None:
    """The payload of ``locate_redundancy``."""
    located = locate_redundancy(packet, wire)
    return None if located is None else located[1]
