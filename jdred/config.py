"""Sizes, rates and model configurations: the only place where they stand.

Signal: 16 kHz mono. A *frame* is 10 ms, a *packet* 20 ms (two frames, one latent), a *chunk* 40 ms (four frames,
what one latent decodes to).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ModelKind = Literal["rdovae", "lpcnet", "fargan", "plc"]
"""Of models of speech."""

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 160
PACKET_FRAMES = 2
PACKET_SAMPLES = PACKET_FRAMES * FRAME_SAMPLES
PACKETS_PER_SECOND = SAMPLE_RATE_HZ // PACKET_SAMPLES
CHUNK_FRAMES = 4
CHUNK_PACKETS = CHUNK_FRAMES // PACKET_FRAMES

NUM_BANDS = 18
NUM_FEATURES = 20
"""18 cepstra, pitch (log2 law), pitch correlation."""
NUM_BURG = 36
LPC_ORDER = 16
PREEMPHASIS = 0.85
MIN_PERIOD = 32
MAX_PERIOD = 256

NUM_LEVELS = 16
"""Quantiser levels: 0 is the finest, 15 the coarsest."""
MAX_CHUNKS = 26
"""The longest redundancy of one packet: 1.04 s."""
HISTORY_LATENTS = MAX_CHUNKS * CHUNK_PACKETS
MAX_PAYLOAD_BYTES = 1000

GRU_BLOCK = 32
"""Rows and columns of a block of a sparse GRU's weights."""


@dataclass(frozen=True)
class RDOVAEConfig:
    """Architecture of the RDO-VAE; the defaults are the network of libopus 1.6 (``facts``: 0.40 M + 0.53 M weights).

    ``latent_dim`` and ``state_dim`` are 80 while training; the rate term empties most of them and
    ``rdovae.deploy`` prunes those.
    """

    architecture: str = "dense"
    """``dense`` (libopus 1.6, every layer sees all before it) or ``paper`` (ICASSP 2023, a feed-forward chain)."""
    latent_dim: int = 80
    state_dim: int = 80
    blocks: int = 5
    """GRU + convolution blocks (``dense``) or GRU + dense pairs (``paper`` has 3)."""
    encoder_width: int = 64
    encoder_gru: int = 32
    encoder_conv: int = 64
    decoder_width: int = 96
    decoder_gru: int = 64
    decoder_conv: int = 32
    state_hidden: int = 128
    level_input: bool = True
    """The decoder is told each chunk's level as ``level / 8 - 1``."""
    pvq_pulses: int = 0
    """> 0: the state is quantised on the unit sphere by PVQ with so many pulses (``paper``: 82)."""
    integer_tables: bool = False
    """Scales and dead zones of the quantisers in 8 bits, as libopus has them."""

    @classmethod
    def paper(cls) -> "RDOVAEConfig":
        """The network of the ICASSP 2023 paper (widths of its first PyTorch port)."""
        return cls(
            architecture="paper",
            state_dim=24,
            blocks=3,
            encoder_width=256,
            encoder_gru=256,
            decoder_width=256,
            decoder_gru=256,
            level_input=False,
            pvq_pulses=82,
        )


@dataclass(frozen=True)
class LPCNetConfig:
    """Architecture of the LPCNet vocoder: frame-rate network, two GRUs at sample rate, a binary tree of 8 levels."""

    gru_a: int = 192
    gru_b: int = 32
    condition: int = 128
    """Width of the frame-rate network and of its output."""
    embedding: int = 128
    """Width of the mu-law embedding; at load time it folds into the GRU input tables."""
    pitch_embedding: int = 64
    lpc_gamma: float = 1.0
    """Bandwidth expansion of the LPC: ``a_j *= gamma**j``."""
    bunch: int = 1
    """Samples for which GRU A steps once, 1, 2 or 4; GRU B steps for each of them."""
    density: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Share of the recurrent weights that GRU A has, of update gate, reset gate and candidate; see ``BlockGRU``."""
    long_term: bool = False
    """The sample-rate networks read the excitation of one pitch period ago too; see ``vocoder.bunch``."""
    end_to_end: bool = False
    """The frame-rate network says the LPC, as reflection coefficients; else they are those of the cepstrum."""

    def __post_init__(self):
        """A JSON file knows lists only. Raises ``ValueError`` for settings out of range."""
        object.__setattr__(self, "density", tuple(self.density))
        if self.bunch not in (1, 2, 4):
            raise ValueError(f"bunch must be 1, 2 or 4, found {self.bunch}")
        for share in self.density:
            _check_range("density", share, 0, 1)
        if min(self.density) < 1 and self.gru_a % GRU_BLOCK:
            raise ValueError(f"gru_a must be a multiple of {GRU_BLOCK} where density is below 1, found {self.gru_a}")


@dataclass(frozen=True)
class FARGANConfig:
    """Architecture of the FARGAN vocoder; the defaults are the network of libopus 1.6 (0.82 M weights)."""

    pitch_embedding: int = 12
    condition_dense: int = 64
    condition_conv: int = 128
    condition: int = 80
    """Width of the conditioning of a sub-frame."""
    first: int = 192
    """Width of the layer over two sub-frames of inputs."""
    grus: tuple[int, ...] = (160, 128, 128)
    dense: int = 128

    def __post_init__(self):
        """A JSON file knows lists only."""
        object.__setattr__(self, "grus", tuple(self.grus))

    @classmethod
    def half(cls) -> "FARGANConfig":
        """Less than half of the weights."""
        return cls(condition=64, first=128, grus=(96, 80, 80), dense=96)


@dataclass(frozen=True)
class PitchNetworkConfig:
    """Architecture of the neural pitch tracker; the defaults are the network of libopus 1.6 (65 k weights)."""

    width: int = 64
    channels: int = 4
    """Of the convolution over lags."""


@dataclass(frozen=True)
class PredictorConfig:
    """Architecture of the PLC feature predictor."""

    width: int = 128
    gru: int = 192


@dataclass(frozen=True)
class LossGeneratorConfig:
    """Architecture of the generator of bursty losses; the defaults are the network of libopus."""

    dense: int = 8
    first_gru: int = 16
    second_gru: int = 32
    max_loss: float = 0.6
    """The largest share of lost packets that it is trained for."""


@dataclass(frozen=True)
class SenderConfig:
    """How a sender splits its bits."""

    bitrate_bps: int = 24_000
    """Rate of the Opus core alone; LBRR and DRED ride on top of it."""
    lbrr_bps: int = 0
    """What in-band FEC (LBRR) may take on top; 0: none. About two thirds of the core is its natural size."""
    expected_loss: float = 0.2
    """Fraction of packets that the encoder should expect to be lost, 0 .. 1; drives LBRR."""
    complexity: int = 10
    dred_duration_ms: int = 1040
    """0 (no DRED) .. 1040, rounded down to whole 40."""
    dred_every: int = 1
    """1 .. 50: one of so many packets reaches back so far. A gap may then have to wait for a later packet than the
    next one, but all of them are cheaper."""
    dred_between_ms: int = 0
    """How far the packets between reach back."""
    level: int = 6
    """Quantiser level of the newest chunk, 0 .. 15."""
    slope: int = 5
    """Index 0 .. 7 into ``bitstream.payload.SLOPES``: how fast levels rise with age."""
    max_level: int = 15
    activity_dbfs: float = -65.0
    """Packets below this mean power (dB of full scale) are silence, which the redundancy leaves out at its ends."""

    def __post_init__(self):
        """Raises ``ValueError`` for settings out of range."""
        longest = MAX_CHUNKS * CHUNK_FRAMES * 10
        _check_range("dred_duration_ms", self.dred_duration_ms, 0, longest)
        _check_range("dred_every", self.dred_every, 1, PACKETS_PER_SECOND)
        _check_range("dred_between_ms", self.dred_between_ms, 0, self.dred_duration_ms)
        _check_range("expected_loss", self.expected_loss, 0, 1)
        _check_range("level", self.level, 0, NUM_LEVELS - 1)
        _check_range("slope", self.slope, 0, 7)
        _check_range("max_level", self.max_level, self.level, NUM_LEVELS - 1)
        _check_range("lbrr_bps", self.lbrr_bps, 0, 500_000)


@dataclass(frozen=True)
class ReceiverConfig:
    """How a receiver plays."""

    playout_delay_ms: int = 1040
    """How long a gap may wait for the packet that repairs it; 0 conceals at once."""
    offline: bool = False
    """A gap waits for the packet that ends it, however long that takes; there is no delay otherwise."""
    use_lbrr: bool = True
    use_dred: bool = True
    splice: bool = True
    """Opus's decoder is told what was played in a gap, so that what follows is decoded better."""
    seed: int = 0
    """Of the vocoder's sampling."""

    def __post_init__(self):
        """Raises ``ValueError`` for settings out of range."""
        _check_range("playout_delay_ms", self.playout_delay_ms, 0, 60_000)


@dataclass(frozen=True)
class NetworkConfig:
    """What a network does to packets."""

    loss: float = 0.0
    """Fraction of packets lost, 0 .. 1."""
    burst_ms: float = 0.0
    """Mean length of a gap; 0: every packet is lost on its own."""
    max_burst_ms: float = 0.0
    """Longest gap; 0: no bound."""
    delay_ms: float = 0.0
    """Of every packet."""
    jitter_ms: float = 0.0
    """Largest further delay, evenly drawn for each packet; above 20 it changes their order."""
    reorder: float = 0.0
    """Share of packets held back by ``reorder_ms``, 0 .. 1."""
    reorder_ms: float = 50.0
    duplicate: float = 0.0
    """Share of packets that arrive twice, 0 .. 1."""
    learned: bool = False
    """Losses drawn by the shipped generator, which makes its own bursts."""
    seed: int = 0

    def __post_init__(self):
        """Raises ``ValueError`` for settings out of range."""
        for name in ("loss", "reorder", "duplicate"):
            _check_range(name, getattr(self, name), 0, 1)
        for name in ("delay_ms", "jitter_ms", "reorder_ms", "burst_ms", "max_burst_ms"):
            _check_range(name, getattr(self, name), 0, 60_000)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} .. {high}, found {value}")


@dataclass(frozen=True)
class FitConfig:
    """How long to train and what to write."""

    total_steps: int = 20_000
    """Where the learning rate schedule ends."""
    minutes: float = 1e9
    """Stop (resumable) after so many minutes of this run."""
    seed: int = 0
    ema: float = 0.998
    """Decay per step of the averaged weights, which are the ones validated and exported."""
    log_every: int = 20
    validate_every: int = 200
    checkpoint_every: int = 200


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    out: Path
    """Folder of this run: checkpoints, logs, the best weights; an interrupted run goes on from there."""
    data: Path = Path()
    """Folder that ``jdred corpus prepare`` wrote: ``validation`` and ``train-0``, ``train-1``, ... Losses need none."""
    fit: FitConfig = FitConfig()
    start_from: str | None = None
    """Weights (a shipped name or a .npz path) to start from where ``out`` has no checkpoint; their sizes hold."""
    learning_rate: float | None = None
    """Its peak; by default that of the shipped configuration, which is too much for trained weights."""
    batch: int | None = None
    """Sequences a step; by default as in the shipped configuration."""
    muon: bool = False
    """Matrices take orthogonal steps (Muon) in place of Adam's; not for lossgen."""
    devices: int = 0
    """Host devices to make of the CPU (0: as JAX finds them); the batch is shared between them."""
