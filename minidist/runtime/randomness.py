"""Seeded randomness: one seed per node, from which independent streams are derived by name.

Separate streams (`derive(seed, "balancing")`) keep one extra draw in one place from changing every choice elsewhere.
The derivation is a stable hash, so a seed means the same thing in every process and Python version.
"""

import hashlib
import os
import random


def fresh_seed() -> int:
    """A seed nobody chose; print it, so that the run can be repeated."""
    return int.from_bytes(os.urandom(6), "big")


def unguessable(size: int) -> bytes:
    """Bytes for passwords, from the machine; the simulation's own there."""
    return os.urandom(size)


def derive(seed: int, stream: str) -> random.Random:
    """The generator of a named stream of a seed."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))
