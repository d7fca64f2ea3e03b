"""What all runs on one data set cost together (guarantee 6.4)."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import filelock

from plainchant.data.files import write_json
from plainchant.errors import ConfigError, PrivacyError
from plainchant.planning import Guarantee
from plainchant.privacy.accounting import epsilon_of, rho_of


class Ledger:
    """What all runs on one data set may cost together, and what they have cost (guarantee 6.4). A JSON file.

    * ρ of zCDP adds up over runs, whatever they have chosen in view of each other's releases.
    * A run is entered once, whole and before it draws anything; what it fails to use it does not get back.

    Attributes:
        epsilon, delta: the cap.
    """

    def __init__(self, path: Path):
        """Reads a ledger.

        Raises:
            ConfigError: there is none, or it cannot be read.
        """
        self.path = path
        self._lock = filelock.FileLock(path.with_name(path.name + ".lock"))
        content = self._read()
        self.epsilon = float(content["epsilon"])
        self.delta = float(content["delta"])

    @classmethod
    def create(cls, path: Path, epsilon: float, delta: float) -> Self:
        """A new ledger with a cap.

        Raises:
            ConfigError: it exists, or cannot be written.
        """
        rho_of(epsilon, delta)
        if path.exists():
            raise ConfigError(f"ledger = {path}: exists already, and its cap stays; leave --epsilon out to see it")
        try:
            write_json(path, {"epsilon": epsilon, "delta": delta, "runs": []})
        except OSError as error:
            raise ConfigError(f"ledger = {path}: cannot be written ({error.strerror})") from None
        return cls(path)

    @property
    def cap(self) -> float:
        """The cap as ρ."""
        return rho_of(self.epsilon, self.delta)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The entries: run, method, rho, begun."""
        runs: list[dict[str, Any]] = self._read()["runs"]
        return runs

    @property
    def spent(self) -> float:
        """Σ ρ of all entries."""
        return float(sum(run["rho"] for run in self.runs))

    def check(self, guarantee: Guarantee) -> float:
        """The ρ that a run would add.

        Raises:
            PrivacyError: it has no such figure, or it would pass the cap.
        """
        if guarantee.rho is None:
            raise PrivacyError(
                f"method = {guarantee.method}: its cost is not known in advance ({guarantee.kind}), so that no ledger "
                "can add it up; take a method with a guarantee known before the run, or run without --ledger"
            )
        spent = self.spent
        # the cap is rounded down in its 12th digit, and so is every entry
        if spent + guarantee.rho > self.cap * (1 + 1e-9):
            left = max(0.0, self.cap - spent)
            raise PrivacyError(
                f"ledger = {self.path}: has ρ = {left:.4g} left of its cap (ε = {self.epsilon:g}, δ = {self.delta:g}), "
                f"and the run costs {guarantee.rho:.4g}; "
                + (
                    f"plan with epsilon = {_rounded_down(epsilon_of(left, self.delta))} at delta = {self.delta:g}"
                    if left > 0
                    else "nothing more may be released from this data"
                )
            )
        return guarantee.rho

    def enter(self, run: str, guarantee: Guarantee) -> None:
        """Enters a run, once.

        Raises:
            PrivacyError: it would pass the cap.
        """
        with self._lock:
            content = self._read()
            if any(entry["run"] == run for entry in content["runs"]):
                return
            entry = {
                "run": run,
                "method": guarantee.method,
                "rho": self.check(guarantee),
                "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            write_json(self.path, content | {"runs": [*content["runs"], entry]})

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            rho_of(content["epsilon"], content["delta"])
            if any(not entry["rho"] >= 0 for entry in content["runs"]):
                raise ValueError
        except FileNotFoundError:
            raise ConfigError(
                f"ledger = {self.path}: there is none; plainchant account --ledger {self.path} --epsilon E begins one"
            ) from None
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"ledger = {self.path}: is not a ledger that can be read; nothing was run") from None
        return dict(content)


def _rounded_down(value: float) -> str:
    return f"{int(value * 1000) / 1000:g}"
