"""How long and how often to measure: what the command line asks for, handed to every subject."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
MIN_PAIRS = 5  # fewer are good for trying things out, never for a record


@dataclass(frozen=True)
class Settings:
    """`seconds` is the length of one measurement; `only` the words that a case's name must hold."""

    pairs: int = MIN_PAIRS
    seconds: float = 5.0
    quick: bool = False
    only: str = ""

    def chosen(self, cases: Sequence[T]) -> list[T]:
        """The cases to measure: all, or those that hold the word given with --only."""
        return [case for case in cases if self.only.lower() in str(case).lower()]

    def say(self, text: str) -> None:
        """Progress, beside the results on stdout."""
        sys.stderr.write(f"  {text}\n")

    def document(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "seconds": self.seconds}
