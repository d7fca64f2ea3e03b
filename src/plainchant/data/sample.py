"""A secret sample of the units of a table, drawn by a keyed function of each unit alone (guarantee 13.6)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

KEY_BYTES = 32
_RANGE = 2**64


@dataclass(frozen=True)
class Sample:
    """Which units are in the sample: those whose 64-bit keyed hash lies below the rate.

    * Keyed BLAKE2b is a pseudorandom function: to everybody without the key, units are drawn independently of each
      other and of everything else, with a probability of at most the rate.
    * All records of a unit agree, in every process that has the key. A row without a unit is its own, by its position.

    >>> sample = Sample(bytes(32), 0.25)
    >>> sum(sample.holds(None, row) for row in range(4000)) in range(900, 1100)
    True
    >>> sample.holds("customer 17", 0) == sample.holds("customer 17", 5)
    True

    Attributes:
        key: secret; drawn once per run.
        rate: in (0, 1].
    """

    key: bytes = field(repr=False)
    rate: float

    def holds(self, unit: str | None, row: int) -> bool:
        """Whether a unit is in the sample.

        Args:
            unit: its identity (`values.unit_key`); None: the row is its own unit.
            row: the row's position in the table, from 0.
        """
        # a row and a unit never have the same input
        name = b"row %d" % row if unit is None else b"unit " + unit.encode("utf-8", "surrogatepass")
        drawn = int.from_bytes(hashlib.blake2b(name, digest_size=8, key=self.key).digest(), "big")
        return drawn < int(self.rate * _RANGE)

    def of(self, units: Sequence[str | None]) -> list[int]:
        """The rows of a whole table that are in the sample, by the unit of each."""
        return [row for row, unit in enumerate(units) if self.holds(unit, row)]
