"""The sparse vector: what the public model predicts as the batch does is free ([Amin24]; guarantee 5.4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from plainchant.arrays import Float32Array
from plainchant.errors import ConfigError, PrivacyError
from plainchant.privacy.accounting import Cost
from plainchant.privacy.aggregation import log_softmax
from plainchant.privacy.mechanisms import Gate, MeanMechanism, TokenSettings
from plainchant.randomness import RandomSource

# Noisy distances are compared on a grid with this many steps per unit, on which discrete Laplace noise is exact.
GRID = 2**32


@dataclass(frozen=True)
class SparseMeanMechanism(MeanMechanism):
    """The worst-case mean with a sparse vector: what the public model predicts as the batch does is free ([Amin24]).

    At each step the distance q = ‖(1/s) Σ_i softmax(φ_i/τ) − softmax(φ_0/τ)‖₁ with noise is compared with a noisy
    threshold. Below it the token comes from the public model alone, otherwise from the batch (guarantee 5.4).

    * One context moves q by at most 1/s; numerical movement of ξ in the logits adds at most e^(2ξ/τ) − 1.
    * An instance, from a fresh threshold up to the first distance above it, is 2Δ/σ-DP (noise σ on the threshold, 2σ on
      the distance), hence (2Δ/σ)²/2-zCDP, whatever the number of public tokens before it.
    * A text has at most `private_tokens` tokens from the batch and one more instance than that. After them it continues
      with the public model, and private records are not used.

    Attributes:
        threshold: θ, an L1 distance from 0 to 2.
        noise: σ, the scale of the Laplace noise on the threshold.
        private_tokens: maximum tokens per text to which records contribute.
        max_tokens: maximum tokens per text.
    """

    threshold: float
    noise: float
    private_tokens: int
    max_tokens: int

    # the gate needs the public logits for any support
    needs_public = True
    replayable = False
    cheaper: ClassVar[str] = ", or ask for fewer private_tokens"

    def __post_init__(self) -> None:
        for name in ("threshold", "noise", "private_tokens", "max_tokens"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} = {value}: must be a finite number > 0")

    @property
    def sensitivity(self) -> float:
        """Δ: how far one unit, and rounding, can move the distance."""
        s = self.settings
        return s.contexts_moved / s.batch_size + math.expm1(2 * s.slack / s.temperature) + 1 / GRID

    @property
    def epsilon_per_instance(self) -> float:
        """ε of one instance of the sparse vector: pure DP, so it bounds every realised loss too."""
        return 2 * self.sensitivity / self.noise

    @property
    def rho_per_instance(self) -> float:
        """The zCDP of one instance of the sparse vector."""
        return self.epsilon_per_instance**2 / 2

    @property
    def rho_per_text(self) -> float:
        """The largest cost of a text."""
        return self.private_tokens * (self.worst_case + self.rho_per_instance) + self.rho_per_instance

    @property
    def per_token(self) -> Cost:
        """The cost of a token to which the records contribute, without its comparisons."""
        return Cost(self.worst_case)

    def affordable(self, budget: Cost) -> int | None:
        # a text is paid for as a whole, at whichever of its tokens the records contribute
        return Cost(self.rho_per_text).times_in(budget) * self.max_tokens

    def cost_of(self, tokens: int) -> Cost:
        return Cost(self.rho_per_text).scaled(math.ceil(tokens / self.max_tokens))

    def claim(self, tokens: int, delta: float) -> float | None:
        raise PrivacyError("sparse_threshold: a sparse vector's choices are not replayed; audit the mean without it")

    def plan_rows(self) -> Sequence[tuple[str, str]]:
        tokens = "1 token" if self.private_tokens == 1 else f"{self.private_tokens} tokens"
        return (("sparse vector", f"at most {tokens} per text from the records, all others from the public model"),)

    def gate(self, randomness: RandomSource) -> Gate | None:
        return SparseGate(self, randomness)


class SparseGate:
    """The sparse vector of one text. Its state is secret and is discarded with the text.

    Attributes:
        instances: number of thresholds drawn; each is paid for.
    """

    def __init__(self, mechanism: SparseMeanMechanism, randomness: RandomSource):
        self._mechanism = mechanism
        self._randomness = randomness
        self._left = mechanism.private_tokens
        self.instances = 0
        self._draw()

    def _draw(self) -> None:
        scale = self._mechanism.noise * GRID
        self._threshold = round(self._mechanism.threshold * GRID) + self._randomness.discrete_laplace(scale)
        self.instances += 1

    def opens(self, private: Float32Array, public: Float32Array) -> bool:
        """Whether the records contribute to this token; both logits on the support."""
        if not self._left:
            return False
        noise = self._randomness.discrete_laplace(2 * self._mechanism.noise * GRID)
        if round(distance(self._mechanism.settings, private, public) * GRID) + noise < self._threshold:
            return False
        self._left -= 1
        self._draw()
        return True

    @property
    def rho(self) -> float:
        """Σ ρ of the instances so far."""
        return self.instances * self._mechanism.rho_per_instance

    @property
    def loss(self) -> float:
        """A bound on their realised loss, nats."""
        return self.instances * self._mechanism.epsilon_per_instance


def distance(settings: TokenSettings, private: Float32Array, public: Float32Array) -> float:
    """‖(1/s) Σ_i softmax(φ_i/τ) − softmax(φ_0/τ)‖₁, from 0 to 1 + n/s; a row that is not finite is ignored."""
    together = np.zeros(private.shape[1])
    for row in private:
        if np.isfinite(row.max()):
            together += np.exp(log_softmax(row.astype(np.float64) / settings.temperature))
    base = np.exp(log_softmax(public.astype(np.float64) / settings.temperature))
    return float(np.abs(together / settings.batch_size - base).sum())
