"""How a packet says that it carries redundancy of ours.

The payload travels as an extension with the experimental id of libopus's DRED, 126, because libopus and its relatives
are known to skip what they do not know there. Two bytes stand before the symbols: a letter and a version, like
libopus's own ``D`` and 12. Our letter is another one because our networks are not libopus's: its decoder would turn
our symbols into noise, and so must not take them for its own. The letter is put here; the version byte is the
payload's first and ``bitstream.codec`` reads it: it takes unknown versions for no redundancy.
"""

from jdred.opus import extension

EXTENSION_ID = 126
LETTER = b"J"


def attach_redundancy(packet: bytes, payload: bytes) -> bytes:
    """The packet with a payload of ``bitstream.codec`` in its padding. Raises ``PacketError``."""
    return extension.attach(packet, EXTENSION_ID, LETTER + payload)


def find_redundancy(packet: bytes) -> bytes | None:
    """The first payload under our letter, without it; None where there is none. Never raises."""
    for _, payload in extension.find(packet, EXTENSION_ID):
        if payload[:1] == LETTER:
            return payload[1:]
    return None
