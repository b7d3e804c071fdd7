"""The sample-rate network of LPCNet as a loop in PyTorch, to compare speeds. Needs ``torch``; weights are random.

The same sizes and steps as ``vocoder.lpcnet``, but for the draw of the excitation, which is PyTorch's own from a
softmax over the 256 indices: eight look-ups along a tree would cost it more.
"""

from collections.abc import Callable

from jdred.config import FRAME_SAMPLES, LPC_ORDER, LPCNetConfig
from jdred.vocoder.sampling import NUM_INDICES


def sample_loop(config: LPCNetConfig, batch: int = 1, samples: int = FRAME_SAMPLES) -> Callable[[], object]:
    """A function that says so many samples, one by one, on one thread without gradients.

    Raises:
      ModuleNotFoundError: PyTorch is not installed.
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    a, b = config.gru_a, config.gru_b
    tables = 0.1 * torch.randn(3, NUM_INDICES, 3 * a)
    condition_a, condition_b = torch.randn(batch, 3 * a), torch.randn(batch, 3 * b)
    recurrent_a, recurrent_b = torch.nn.Linear(a, 3 * a), torch.nn.Linear(b, 3 * b)
    input_b, units = torch.nn.Linear(a, 3 * b), torch.nn.Linear(b, 2 * NUM_INDICES)
    factors, taps = torch.ones(2, NUM_INDICES), 0.05 * torch.randn(batch, LPC_ORDER)

    def gru(gates: torch.Tensor, recurrent: torch.nn.Linear, h: torch.Tensor) -> torch.Tensor:
        (rx, zx, nx), (rh, zh, nh) = gates.chunk(3, -1), recurrent(h).chunk(3, -1)
        z = torch.sigmoid(zx + zh)
        return z * h + (1 - z) * torch.tanh(nx + torch.sigmoid(rx + rh) * nh)

    def quantize(x: torch.Tensor) -> torch.Tensor:
        mu = torch.sign(x) * 16 * torch.log2(1 + x.abs() / 128.5)
        return (128 + mu).round().clamp(0, NUM_INDICES - 1).long()

    def decode(index: torch.Tensor) -> torch.Tensor:
        u = index - 128.0
        return torch.sign(u) * 128.5 * (torch.exp2(u.abs() / 16) - 1)

    @torch.no_grad()
    def say() -> torch.Tensor:
        h_a, h_b = torch.zeros(batch, a), torch.zeros(batch, b)
        signal, excitation = torch.zeros(batch, LPC_ORDER), torch.full((batch,), 128)
        said = []
        for _ in range(samples):
            prediction = (taps * signal).sum(-1)
            looked_up = tables[0][quantize(signal[:, -1])] + tables[1][quantize(prediction)] + tables[2][excitation]
            h_a = gru(condition_a + looked_up, recurrent_a, h_a)
            h_b = gru(condition_b + input_b(h_a), recurrent_b, h_b)
            logits = (torch.tanh(units(h_b)).view(batch, 2, NUM_INDICES) * factors).sum(1)
            excitation = torch.multinomial(torch.softmax(logits, -1), 1)[:, 0]
            said.append((prediction + decode(excitation)).clamp(-32768, 32767))
            signal = torch.cat([signal[:, 1:], said[-1][:, None]], -1)
        return torch.stack(said, -1)

    return say
