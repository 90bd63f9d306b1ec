"""One seed, several independent streams: an extra draw in one place must not change every choice elsewhere."""

import random

from minidist.runtime.randomness import derive


class Streams:
    """The streams of a run. `of(name)` is one more, for a node or a test."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.scheduling = derive(seed, "scheduling")
        self.network = derive(seed, "network")
        self.disk = derive(seed, "disk")
        self.faults = derive(seed, "faults")

    def of(self, name: str) -> random.Random:
        return derive(self.seed, name)
