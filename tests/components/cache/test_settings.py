"""Options, their Redis names, and the README that lists them."""

from pathlib import Path

import pytest

from minidist.components.cache.config import CacheConfig
from minidist.components.cache.settings import OPTIONS, shown_value
from minidist.components.cache.state import human_size
from minidist.runtime.config import Config, load, options_of, reference

README = Path(__file__).parents[3] / "minidist/components/cache/README.md"


def test_the_readme_lists_the_options_as_they_are():
    common = options_of(Config)
    listed = [line for line in README.read_text().splitlines() if line.startswith("| `--")]
    rows = {line.split("`")[1]: line for line in reference(CacheConfig).splitlines() if line.startswith("| `--")}
    own = [
        rows[each.flag]
        for name, each in options_of(CacheConfig).items()
        if name not in common or each.aliases or each.default != common[name].default
    ]
    assert [line for line in own if line not in listed and "--listen" not in line] == []
    assert [line for line in listed if line not in rows.values()] == []


def test_redis_names_are_accepted_as_flags():
    config = load(CacheConfig, ["--maxmemory", "64mb", "--maxmemory-policy", "volatile-ttl"], {})
    assert (config.max_memory, config.eviction) == (64 * 1024**2, "volatile-ttl")


def test_names_of_config_get():
    assert {"maxmemory", "maxmemory-policy", "maxclients", "timeout", "databases", "proto-max-bulk-len"} <= set(OPTIONS)
    assert shown_value(OPTIONS["timeout"], 300_000) == "300"


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0B"), (1023, "1023B"), (1536, "1.50K"), (1024**2, "1.00M"), (5 * 1024**4, "5.00T")]
)
def test_human_sizes(size, shown):
    assert human_size(size) == shown
