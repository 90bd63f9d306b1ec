"""The `disk` fault of the contract: what a disk asks before each operation.

The listener's faults put shims between transport and connection; a disk has no such seam, so it consults a `DiskFaults`
object that `runtime/faults` fills. Without faults that is one attribute look-up (`active`). The verdict is taken on the
loop when an operation is called, never on the disk's thread, so that seeded probabilities strike the same operations in
every run.

slow, full and failing-fsync work on every disk. torn and lost-unsynced describe what a crash leaves behind, and only
a disk that controls its crashes (the simulated one) can do that: it asks `holds(...)` when its node is killed. A disk
that cannot do one of them says so when the fault is added.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from minidist.runtime.disk.port import NotSupported, Operation


class DiskFaultKind(Enum):
    """The values of the contract's parameter `what`."""

    SLOW = "slow"  # every operation takes `ms` longer
    FULL = "full"  # whatever needs room is refused
    FAILING_FSYNC = "failing-fsync"  # every sync fails, which is final for the file
    TORN = "torn"  # at a crash, of the last write only a part is there
    LOST_UNSYNCED = "lost-unsynced"  # at a crash, what was not synced is gone


ON_A_REAL_DISK = (DiskFaultKind.SLOW, DiskFaultKind.FULL, DiskFaultKind.FAILING_FSYNC)

_NEEDS_ROOM = (Operation.WRITE, Operation.ALLOCATE, Operation.MAKE_DIRECTORY)


@dataclass(slots=True, eq=False)
class DiskFault:
    """One fault that is set. `times` counts down as it strikes; None is without end."""

    what: DiskFaultKind
    ms: int = 0
    probability: float = 1.0
    times: int | None = None

    def __post_init__(self) -> None:
        if self.ms < 0 or not 0.0 <= self.probability <= 1.0 or (self.times is not None and self.times < 1):
            raise ValueError("ms is >= 0, probability between 0 and 1, times >= 1")

    def _concerns(self, operation: Operation) -> bool:
        if self.what is DiskFaultKind.SLOW:
            return True
        if self.what is DiskFaultKind.FULL:
            return operation in _NEEDS_ROOM
        return self.what is DiskFaultKind.FAILING_FSYNC and operation is Operation.SYNC

    def strikes(self, operation: Operation, rng: random.Random) -> bool:
        """Whether it strikes this operation; counts `times` down when it does."""
        if not self._concerns(operation) or self.times == 0:
            return False
        if self.probability < 1.0 and rng.random() >= self.probability:
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Verdict(NamedTuple):
    """What happens to one operation: it waits `delay_s`, then fails with this errno (0: it is carried out)."""

    delay_s: float
    errno: int


_UNHARMED = Verdict(0.0, 0)


class DiskFaults:
    """The faults set on one disk. `fired` is called, on the loop, each time one strikes."""

    def __init__(
        self,
        rng: random.Random | None = None,
        supported: tuple[DiskFaultKind, ...] = ON_A_REAL_DISK,
        fired: Callable[[DiskFault, Operation], None] | None = None,
    ) -> None:
        self.active = False
        self.fired = fired
        self._rng = rng or random.Random(0)
        self._supported = supported
        self._faults: list[DiskFault] = []

    def supports(self, what: DiskFaultKind) -> bool:
        return what in self._supported

    def add(self, fault: DiskFault) -> None:
        """Raises NotSupported when this disk cannot do it."""
        if not self.supports(fault.what):
            raise NotSupported("set the fault", fault.what.value, "only a simulated disk can do that")
        self._faults.append(fault)
        self.active = True

    def remove(self, fault: DiskFault) -> None:
        """Fine when it is not set (any more)."""
        if fault in self._faults:
            self._faults.remove(fault)
        self.active = bool(self._faults)

    def clear(self) -> None:
        self._faults.clear()
        self.active = False

    def holds(self, what: DiskFaultKind, operation: Operation) -> bool:
        """Whether a fault of this kind is set that strikes with certainty and without end; counts when it does.

        For those who need not try the operation, or cannot: what is certainly full takes nothing.
        """
        for fault in self._faults:
            if fault.what is what and fault.probability == 1.0 and fault.times is None:
                if self.fired is not None:
                    self.fired(fault, operation)
                return True
        return False

    def verdict(self, operation: Operation) -> Verdict:
        """Decides over one operation that is about to start. Delays add up; the first error counts."""
        delay_s, code = 0.0, 0
        for fault in self._faults:
            if code and fault.what is not DiskFaultKind.SLOW:
                continue
            if not fault.strikes(operation, self._rng):
                continue
            if self.fired is not None:
                self.fired(fault, operation)
            if fault.what is DiskFaultKind.SLOW:
                delay_s += fault.ms / 1000
            else:
                code = errno.ENOSPC if fault.what is DiskFaultKind.FULL else errno.EIO
        return Verdict(delay_s, code) if delay_s or code else _UNHARMED
