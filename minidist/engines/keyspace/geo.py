"""Places on Earth as scores of a sorted set: Redis' geohash, distances, and where to look for what is near.

A place is a cell of a grid of 2^26 by 2^26 over longitude and (cut) latitude. The bits of its two numbers, interleaved,
are the score: 52 bits, which a double holds exactly. A coarser grid of 2^step by 2^step is the same number without its
last bits, so each of its cells is a range of scores. Whatever is within a box lies in the few cells that cover it.

Source: https://redis.io/docs/latest/commands/geoadd/; geohash_helper.c for the Earth's radius and the formulas.
"""

import math
from dataclasses import dataclass

from minidist.engines.keyspace.sortedsets import ScoreRange

STEPS = 26
MOST_LONGITUDE, MOST_LATITUDE = 180.0, 85.05112878
EARTH_RADIUS_M = 6372797.560856
ALPHABET = "0123456789bcdefghjkmnpqrstuvwxyz"
# A search looks into so many cells at most: few, and not much larger than what is searched.
MOST_CELLS = 9
# Against rounding at the edge of what is searched, in degrees: a hundredth of a metre.
MARGIN = 1e-7


@dataclass(frozen=True, slots=True)
class Area:
    """What is searched around a place: a circle of radius `width_m` / 2, or a box."""

    longitude: float
    latitude: float
    width_m: float
    height_m: float
    is_circle: bool

    def distance_m(self, longitude: float, latitude: float) -> float | None:
        """How far a place is from the middle; None outside of the area."""
        if not self.is_circle:
            if abs(math.radians(latitude) - math.radians(self.latitude)) * EARTH_RADIUS_M > self.height_m / 2:
                return None
            if distance_m(longitude, latitude, self.longitude, latitude) > self.width_m / 2:
                return None
        found = distance_m(self.longitude, self.latitude, longitude, latitude)
        return None if self.is_circle and found > self.width_m / 2 else found


def interleaved(low: int, high: int) -> int:
    """The bits of two numbers in turns, the first's lowest bit lowest."""
    return int(f"{low:b}", 4) | int(f"{high:b}", 4) << 1


def separated(bits: int) -> tuple[int, int]:
    """What `interleaved` was given, for a score."""
    digits = f"{bits:054b}"
    return int(digits[1::2], 2), int(digits[::2], 2)


def encode(longitude: float, latitude: float, most_latitude: float = MOST_LATITUDE) -> int:
    """The score of a place. At the very edges, 180° and the highest latitude, it has a bit more, as in Redis."""
    across = int((longitude + MOST_LONGITUDE) / (2 * MOST_LONGITUDE) * (1 << STEPS))
    up = int((latitude + most_latitude) / (2 * most_latitude) * (1 << STEPS))
    return interleaved(up, across)


def decode(score: float) -> tuple[float, float]:
    """The middle of the cell that a score names: longitude, latitude."""
    up, across = separated(int(score) & ((1 << 2 * STEPS + 2) - 1))
    longitude = (_edge(across, MOST_LONGITUDE) + _edge(across + 1, MOST_LONGITUDE)) / 2
    latitude = (_edge(up, MOST_LATITUDE) + _edge(up + 1, MOST_LATITUDE)) / 2
    return min(longitude, MOST_LONGITUDE), min(latitude, MOST_LATITUDE)


def _edge(number: int, most: float) -> float:
    return -most + number / (1 << STEPS) * (2 * most)


def geohash(score: float) -> str:
    """The eleven letters of the standard geohash, which does not cut the latitude; the last is always 0."""
    bits = encode(*decode(score), most_latitude=90.0)
    return "".join(ALPHABET[bits >> (2 * STEPS - 5 * at) & 31] for at in range(1, 11)) + "0"


def distance_m(longitude: float, latitude: float, to_longitude: float, to_latitude: float) -> float:
    """Along the Earth taken for a sphere (haversine)."""
    one, two = math.radians(latitude), math.radians(to_latitude)
    across = math.sin((math.radians(to_longitude) - math.radians(longitude)) / 2)
    if across == 0:
        return EARTH_RADIUS_M * abs(two - one)
    up = math.sin((two - one) / 2)
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(up * up + math.cos(one) * math.cos(two) * across * across))


def covering(area: Area) -> list[ScoreRange]:
    """Ranges of scores that hold everything within an area, and some of what is around it."""
    up = math.degrees(area.height_m / 2 / EARTH_RADIUS_M) + MARGIN
    farthest = math.radians(min(abs(area.latitude) + up, 90.0))
    quarter = min(area.width_m / 4 / EARTH_RADIUS_M, math.pi / 2)
    ratio = math.sin(quarter) / max(math.cos(farthest), 1e-12)
    across = MOST_LONGITUDE if ratio >= 1 else math.degrees(2 * math.asin(ratio)) + MARGIN
    for step in range(STEPS, -1, -1):
        west, east = (_cell(area.longitude + by, MOST_LONGITUDE, step) for by in (-across, across))
        if east - west >= 1 << step:
            west, east = 0, (1 << step) - 1
        south, north = (
            min(max(_cell(area.latitude + by, MOST_LATITUDE, step), 0), (1 << step) - 1) for by in (-up, up)
        )
        if (east - west + 1) * (north - south + 1) <= MOST_CELLS:
            break
    shift = 2 * (STEPS - step)
    cells = sorted(
        interleaved(row, column % (1 << step))
        for row in range(south, north + 1)
        for column in range(west, east + 1)
    )  # fmt: skip
    return [ScoreRange(float(cell << shift), float((cell + 1) << shift), without_high=True) for cell in cells]


def _cell(degrees: float, most: float, step: int) -> int:
    """The row or column of a grid, which may lie beyond its edges."""
    return math.floor((degrees + most) / (2 * most) * (1 << step))
