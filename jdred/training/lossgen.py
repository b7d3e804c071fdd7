"""Training the generator of bursty losses on synthetic mixtures of Gilbert-Elliott chains; no network was measured."""

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from jdred.config import LossGeneratorConfig
from jdred.link.channel import PACKET_MS, bernoulli, gilbert_elliott
from jdred.link.lossgen import LossGenerator, LossInput
from jdred.streaming import batch_state
from jdred.training import Task


@dataclass(frozen=True)
class LossSettings:
    model: LossGeneratorConfig = LossGeneratorConfig()
    batch: int = 128
    packets: int = 1000
    """Length of a training sequence."""
    learning_rate: float = 3e-3
    decay: float = 1e-3
    """The rate after t steps is ``learning_rate / (1 + decay t)``."""
    max_burst_packets: float = 15.0
    """Mean bursts are drawn between 1 and this, evenly in the logarithm."""
    longest_burst_packets: float = 50.0
    """No burst of any chain is longer."""
    single: float = 0.3
    """Up to this share of the losses of a sequence comes one by one, whatever the chain does."""
    jitter: float = 0.1
    """The share of loss that the network is told is off by so much, in units of p (1 - p)."""
    validation_sequences: int = 256


@dataclass(frozen=True)
class LossTask(Task):
    """``jdred.training.Task`` of the loss generator. Its data are drawn, not read."""

    settings: LossSettings = field(default_factory=LossSettings)
    name: str = "lossgen"

    def init(self, seed: int) -> LossGenerator:
        return LossGenerator(self.settings.model, rngs=nnx.Rngs(seed))

    def config(self) -> dict[str, Any]:
        return {"kind": self.name, "model": asdict(self.settings.model), "settings": asdict(self.settings)}

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        del total_steps

        def rate(step: Array) -> Array:
            return self.settings.learning_rate / (1 + self.settings.decay * step)

        return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b1=0.8, b2=0.98))

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self._draw(rng, self.settings.batch)

    def loss(self, parameters: LossGenerator, batch: dict[str, Array], key: Array, step: Array):
        value = objective(parameters, batch)
        return value, {"entropy_bits": value / np.log(2)}

    def validate(self, parameters: LossGenerator) -> dict[str, float]:
        """Mean cross-entropy a packet in nats; and that of independent losses at the share told, to compare with."""
        batch = self._draw(np.random.default_rng(1), self.settings.validation_sequences)
        share = np.clip(batch["loss"], 1e-4, 1 - 1e-4)
        independent = -np.mean(np.where(batch["lost"] > 0, np.log(share), np.log(1 - share)))
        return {"loss": float(objective(parameters, batch)), "independent_loss": float(independent)}

    def _draw(self, rng: np.random.Generator, sequences: int) -> dict[str, np.ndarray]:
        lost, loss = draw_sequences(jax.random.key(rng.integers(1 << 32)), sequences, self.settings)
        return {"lost": np.asarray(lost, np.float32), "loss": np.asarray(loss)}


@partial(jax.jit, static_argnums=(1, 2))
def draw_sequences(
    key: Key[Array, ""], sequences: int, settings: LossSettings
) -> tuple[Float[Array, "sequences packets"], Float[Array, "sequences packets"]]:
    """Losses, and the share of them that the network is told, jittered as a whole and from packet to packet.

    A sequence is a chain with a loss, a mean burst and a share of single losses of its own. It is told the share that
    came out.
    """
    chains, told = jax.random.split(key)
    lost = jax.vmap(partial(_draw_chain, settings=settings))(jax.random.split(chains, sequences)).astype(jnp.float32)
    share = jnp.mean(lost, axis=1, keepdims=True)
    whole, each = jax.random.split(told)
    off = jax.random.normal(whole, share.shape) + jax.random.normal(each, lost.shape)
    return lost, jnp.clip(share + settings.jitter * off * share * (1 - share), 0, 1)


def _draw_chain(key: Key[Array, ""], settings: LossSettings) -> Array:
    parameters, bursts, singles = jax.random.split(key, 3)
    loss, burst, single = jax.random.uniform(parameters, (3,))
    # A maximal burst takes some of the loss away; a little more than the largest share is asked for.
    loss = (settings.model.max_loss + 0.05) * loss
    single = settings.single * single
    burst = jnp.exp(burst * jnp.log(settings.max_burst_packets))
    chained = loss * (1 - single)
    burst = jnp.maximum(burst, chained / (1 - chained))
    longest = PACKET_MS * settings.longest_burst_packets
    chain = gilbert_elliott(bursts, settings.packets, chained, PACKET_MS * burst, longest)
    return chain | bernoulli(singles, settings.packets, loss * single / (1 - chained))


@jax.jit
def objective(generator: LossGenerator, batch: dict[str, Array]) -> Float[Array, ""]:
    """Mean cross-entropy of the next loss, in nats a packet, each told the true one before."""
    lost = jnp.swapaxes(batch["lost"], 0, 1)
    before = jnp.concatenate([jnp.zeros_like(lost[:1]), lost[:-1]])
    states = batch_state(generator.init_state(), lost.shape[1:])
    _, logits = generator.scan(states, LossInput(before, jnp.swapaxes(batch["loss"], 0, 1)))
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, lost))
