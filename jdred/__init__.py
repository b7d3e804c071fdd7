"""jdred: speech that survives bad networks, in JAX.

Each 20 ms Opus packet also carries, in padding that any Opus decoder skips, a very small description of up to the last
second of speech. When packets are lost, the next one that arrives holds what is missing: its description is decoded
backwards in time, and a neural vocoder, going on from the last good sample, speaks the gap. This is Deep REDundancy
(DRED), as pure functions that train, measure and run live.

>>> models = jdred.load()
>>> jdred.warm_up(models)  # compile now, not in the middle of the call
>>> sender, receiver = jdred.Sender(models), jdred.Receiver(models)
>>> packet = sender.send(pcm)  # 320 samples at 16 kHz to one real Opus packet
>>> heard = receiver.push(packet)  # or None where it was lost

``call`` does so for a whole recording. ``simulate`` is the same without libopus: jitted, batched by ``vmap``, with
gradients from waveform to waveform. Names are imported when they are first used.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Call": "jdred.link.call",
    "Concealer": "jdred.plc.concealer",
    "LPCNet": "jdred.vocoder.lpcnet",
    "LPCNetConfig": "jdred.config",
    "Models": "jdred.models",
    "Predictor": "jdred.plc.predictor",
    "RDOVAE": "jdred.rdovae",
    "RDOVAEConfig": "jdred.config",
    "Receiver": "jdred.link.receiver",
    "ReceiverConfig": "jdred.config",
    "Sender": "jdred.link.sender",
    "SenderConfig": "jdred.config",
    "Simulated": "jdred.link.simulate",
    "Source": "jdred.link.receiver",
    "bernoulli": "jdred.link.channel",
    "call": "jdred.link.call",
    "extract": "jdred.dsp.features",
    "gilbert_elliott": "jdred.link.channel",
    "load": "jdred.models",
    "plan": "jdred.link.plan",
    "read_trace": "jdred.link.channel",
    "simulate": "jdred.link.simulate",
    "warm_up": "jdred.link.call",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jdred' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
