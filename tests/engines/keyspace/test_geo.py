"""Geo: searches against a look at every member, and against a real server."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.geo import MOST_LATITUDE, Area, covering, decode, distance_m, encode, geohash
from minidist.engines.keyspace.sortedsets import SortedSet

LONGITUDES = st.one_of(st.floats(-180, 179.99), st.sampled_from([-180.0, 0.0, 179.99, -179.99]))
LATITUDES = st.one_of(st.floats(-85.05, 85.05), st.sampled_from([-85.05, 0.0, 85.05]))
SIZES = st.one_of(st.floats(0, 5e7), st.sampled_from([0.0, 1.0, 1000.0, 1e6, 2e7, 4e7]))


@given(LONGITUDES, LATITUDES)
def test_a_place_is_decoded_to_within_its_cell(longitude, latitude):
    found = decode(encode(longitude, latitude))
    assert abs(found[0] - longitude) <= 360 / 2**26
    assert abs(found[1] - latitude) <= 2 * MOST_LATITUDE / 2**26
    assert encode(*found) == encode(longitude, latitude)


def test_known_places():
    palermo, catania = encode(13.361389, 38.115556), encode(15.087269, 37.502669)
    assert (palermo, catania) == (3479099956230698, 3479447370796909)
    assert (geohash(palermo), geohash(catania)) == ("sqc8b49rny0", "sqdtr74hyu0")
    assert round(distance_m(*decode(palermo), *decode(catania)), 4) == 166274.1516


PLACES = [(random.Random(at).uniform(-180, 179.99), random.Random(-at - 1).uniform(-85, 85)) for at in range(300)]


@given(LONGITUDES, LATITUDES, SIZES, SIZES, st.booleans())
@settings(max_examples=150, deadline=None)
def test_nothing_within_an_area_is_missed(longitude, latitude, width_m, height_m, is_circle):
    near = [(longitude + east / 1000, latitude) for east in range(-5, 5) if -180 <= longitude + east / 1000 < 180]
    places = {b"%d" % at: float(encode(*place)) for at, place in enumerate([*PLACES, *near])}
    value = SortedSet.of(places.items())
    area = Area(longitude, latitude, width_m, width_m if is_circle else height_m, is_circle)
    ranges = covering(area)
    assert len(ranges) <= 9
    candidates = [member for each in ranges for _, member in value.pairs(*value.positions(each))]
    assert len(candidates) == len(set(candidates))
    within = {member for member, score in places.items() if area.distance_m(*decode(score)) is not None}
    assert within <= set(candidates)


@pytest.mark.parametrize("shape", ["BYRADIUS {} km", "BYBOX {} 300 km", "BYBOX 500 {} km"])
def test_searches_find_what_a_real_server_finds(redis_client, world_type, shape):
    redis, client, rng = redis_client(), world_type().client(), random.Random(2)
    for number in range(1500):
        longitude, latitude = (
            (rng.uniform(-180, 180), rng.uniform(-85, 85)) if number % 2 else (rng.gauss(10, 2), rng.gauss(50, 2))
        )
        command = f"GEOADD g {longitude} {latitude} m{number}".encode().split()
        assert client.show(*command) == redis.show(*command)
    for size in (0, 1, 30, 200, 400):
        for _ in range(8):
            middle = f"FROMLONLAT {rng.gauss(10, 3)} {rng.gauss(50, 3)}"
            command = f"GEOSEARCH g {middle} {shape.format(size)} ASC WITHDIST WITHHASH".encode().split()
            assert client.show(*command) == redis.show(*command), command
    assert redis.show(b"GEODIST", b"g", b"m1", b"m2") == client.show(b"GEODIST", b"g", b"m1", b"m2")
