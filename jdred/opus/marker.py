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


def find_redundancy(packet: bytes, wire: Wire = JDRED) -> bytes | None:
    """The payload under a wire's letter, without it; None where there is none. Never raises.

    Of several it is the first of the wire's version, or the first of all where none is.
    """
    found = [payload[1:] for _, payload in extension.find(packet, EXTENSION_ID) if payload[:1] == wire.letter]
    readable = (payload for payload in found if payload and wire.announced(payload[0]) is not None)
    return next(readable, found[0] if found else None)
