"""The page of the balancer says what the code says."""

from pathlib import Path

from minidist.components.balancer.config import BalancerConfig
from minidist.engines.balancing import UpstreamState
from minidist.runtime.config import WorkersConfig, options_of, reference

PAGE = (Path(__file__).parents[3] / "minidist/components/balancer/README.md").read_text()


def test_the_page_lists_every_option_of_its_own() -> None:
    common = options_of(WorkersConfig)
    for row in reference(BalancerConfig).splitlines():
        if row.startswith("| `--") and row.split("`")[1][2:].replace("-", "_") not in common:
            assert row in PAGE, "take the table from minidist.runtime.config.reference(BalancerConfig)"


def test_the_page_names_every_state() -> None:
    assert all(f"`{state.value}`" in PAGE for state in UpstreamState)
