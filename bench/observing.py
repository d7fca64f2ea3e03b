"""A mechanism that tells a bench what it draws from."""

from collections.abc import Callable
from typing import Any

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.privacy.mechanisms import TokenDistribution, TokenMechanism

Note = Callable[[Float32Array, Float32Array, IntArray, TokenDistribution], None]


class Observed:
    """Stands for a mechanism, and tells the private and public logits, the support and the distribution of each step.

    What is told is private: it is for a bench on data that may be seen.
    """

    def __init__(self, inner: TokenMechanism, note: Note):
        self._inner, self._note = inner, note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def distribution(
        self,
        private: Float32Array,
        public: Float32Array,
        support: IntArray,
        allowance: Float64Array | None = None,
    ) -> TokenDistribution:
        found = self._inner.distribution(private, public, support, allowance)
        self._note(private, public, support, found)
        return found
