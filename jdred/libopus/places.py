"""Which layer of libopus 1.6 is which array of our modules.

Our kernels are ``[inputs, outputs]``, libopus's matrices ``[outputs, inputs]``; gates, taps and concatenations come in
the same order in both.
"""

from dataclasses import dataclass
from typing import Literal

Storage = Literal["int8", "sparse", "float"]


@dataclass(frozen=True)
class Place:
    """One linear layer (or table) of libopus, and where it stands in our module."""

    layer: str
    """Its name in libopus."""
    kernel: str
    """The array of ours that holds its weights."""
    storage: Storage = "int8"
    """8 bits, 8 bits without the blocks that are zero, or float32. The first two are fed rounded activations."""
    bias: str | None = None
    """The array of ours that holds its bias; None: libopus has a bias of zeros, we none."""
    stores_bias: bool = True
    """Whether libopus stores that bias of zeros."""
    kind: Literal["linear", "table", "conv2d"] = "linear"
    multiple: int = 8
    """libopus pads the outputs of 8-bit layers with zeros to a multiple of this."""

    @property
    def module(self) -> str:
        """Path of the layer in our module."""
        return self.kernel.rpartition("/")[0]


def _dense(layer: str, module: str, storage: Storage = "int8", bias: bool = True) -> Place:
    return Place(layer, f"{module}/kernel", storage, f"{module}/bias" if bias else None)


def _gru(layer: str, module: str, storage: Storage = "int8", bias: bool = True) -> list[Place]:
    """``storage`` is that of the input matrix."""
    inputs = Place(f"{layer}_input", f"{module}/kernel", storage, f"{module}/bias" if bias else None, bias)
    recurrent = Place(
        f"{layer}_recurrent", f"{module}/recurrent", "int8", f"{module}/recurrent_bias" if bias else None, bias
    )
    return [inputs, recurrent]


def _rdovae_encoder(blocks: int = 5) -> list[Place]:
    numbers = range(1, blocks + 1)
    return [
        _dense("enc_dense1", "encoder/input", "float"),
        _dense("enc_zdense", "encoder/latent"),
        _dense("gdense2", "encoder/state_out"),
        _dense("gdense1", "encoder/state_hidden", "sparse"),
        *[_dense(f"enc_conv_dense{n}", f"encoder/bottlenecks/{n - 1}", "sparse") for n in numbers],
        *[place for n in numbers for place in _gru(f"enc_gru{n}", f"encoder/grus/{n - 1}", "sparse")],
        *[_dense(f"enc_conv{n}", f"encoder/convs/{n - 1}") for n in numbers],
    ]


def _rdovae_decoder(blocks: int = 5) -> list[Place]:
    numbers = range(1, blocks + 1)
    return [
        _dense("dec_dense1", "decoder/input", "float"),
        *[_dense(f"dec_glu{n}", f"decoder/glus/{n - 1}", bias=False) for n in numbers],
        _dense("dec_hidden_init", "decoder/start_hidden", "float"),
        _dense("dec_output", "decoder/output", "sparse"),
        *[_dense(f"dec_conv_dense{n}", f"decoder/bottlenecks/{n - 1}", "sparse") for n in numbers],
        _dense("dec_gru_init", "decoder/start_grus", "sparse"),
        *[place for n in numbers for place in _gru(f"dec_gru{n}", f"decoder/grus/{n - 1}", "sparse")],
        *[_dense(f"dec_conv{n}", f"decoder/convs/{n - 1}") for n in numbers],
    ]


def _fargan(grus: int = 3) -> list[Place]:
    numbers = range(1, grus + 1)
    return [
        Place("cond_net_pembed", "condition/pitch", "float", kind="table"),
        _dense("cond_net_fdense1", "condition/dense", "float", bias=False),
        _dense("cond_net_fconv1", "condition/conv", bias=False),
        _dense("cond_net_fdense2", "condition/output", bias=False),
        _dense("sig_net_cond_gain_dense", "subframe/gain", "float"),
        _dense("sig_net_fwc0_conv", "subframe/first", bias=False),
        _dense("sig_net_fwc0_glu_gate", "subframe/first_glu", bias=False),
        *[place for n in numbers for place in _gru(f"sig_net_gru{n}", f"subframe/grus/{n - 1}", bias=False)],
        *[_dense(f"sig_net_gru{n}_glu_gate", f"subframe/glus/{n - 1}", bias=False) for n in numbers],
        _dense("sig_net_skip_glu_gate", "subframe/dense_glu", bias=False),
        _dense("sig_net_skip_dense", "subframe/dense", bias=False),
        _dense("sig_net_sig_dense_out", "subframe/output", bias=False),
        _dense("sig_net_gain_dense_out", "subframe/pitch_gains", "float"),
    ]


def _predictor() -> list[Place]:
    return [
        _dense("plc_dense_in", "dense_in", "float"),
        _dense("plc_dense_out", "dense_out", "float"),
        *_gru("plc_gru1", "first"),
        *_gru("plc_gru2", "second"),
    ]


def _pitch() -> list[Place]:
    convs = [
        Place(f"conv2d_{n}", f"convs/{n - 1}/conv/kernel", "float", f"convs/{n - 1}/conv/bias", kind="conv2d")
        for n in (1, 2)
    ]
    return [
        _dense("dense_if_upsampler_1", "frequency/0"),
        _dense("dense_if_upsampler_2", "frequency/1"),
        _dense("dense_downsampler", "joined"),
        Place("dense_final_upsampler", "output/kernel", bias="output/bias", multiple=64),
        *convs,
        *_gru("gru_1", "gru"),
    ]


FARGAN = tuple(_fargan())
PITCH = tuple(_pitch())
PREDICTOR = tuple(_predictor())
RDOVAE = tuple(_rdovae_encoder() + _rdovae_decoder())
