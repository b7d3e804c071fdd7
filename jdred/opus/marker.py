"""How a packet says that it carries redundancy of ours.

The payload travels as an extension with the experimental id of libopus's DRED, 126, because libopus and its relatives
are known to skip what they do not know there. Two bytes stand before the payload: a letter and a version, like
libopus's own ``D``. Our letter is another one because our networks are not libopus's: its decoder would turn our
symbols into noise, and so must not take them for its own. The version counts networks and bitstream together; a
receiver reads what it knows and takes the rest for no redundancy.
"""

from jdred.opus import extension

EXTENSION_ID = 126
LETTER = ord("J")
VERSION = 1
HEADER = bytes([LETTER, VERSION])


def attach_redundancy(packet: bytes, payload: bytes) -> bytes:
    """The packet with a redundancy payload (``bitstream.payload``) in its padding. Raises ``PacketError``."""
    return extension.attach(packet, EXTENSION_ID, HEADER + payload)


def find_redundancy(packet: bytes) -> bytes | None:
    """The first redundancy payload of our letter and version, without them; None where there is none. Never raises."""
    for _, payload in extension.find(packet, EXTENSION_ID):
        if payload[: len(HEADER)] == HEADER:
            return payload[len(HEADER) :]
    return None
