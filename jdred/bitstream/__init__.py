"""Symbols to bytes and back: range coder, Laplace symbols, payloads, and which part of the history to send.

Nothing here knows a network; ``rdovae.tables`` is all that the coder needs of one.
"""

from jdred.bitstream.activity import Plan, plan
from jdred.bitstream.codec import PayloadCodec, PayloadError
from jdred.bitstream.payload import Header, Payload, level_schedule

__all__ = ["Header", "Payload", "PayloadCodec", "PayloadError", "Plan", "level_schedule", "plan"]
