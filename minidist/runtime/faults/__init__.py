"""Faults of a node, set through its admin port: `spec.py` says what they are, `faultset.py` how they take hold."""

from minidist.runtime.faults.faultset import FaultSet
from minidist.runtime.faults.spec import FaultError

__all__ = ["FaultError", "FaultSet"]
