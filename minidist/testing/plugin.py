"""The pytest plugin: fixtures that give a test real nodes. See docs/testing.md.

It loads in every pytest run of everybody who has minidist installed, so at import it defines functions and nothing
else; the rest is imported when a fixture is used. Nodes are processes of a supervisor that belongs to the test session
(or to the xdist worker), never on the test's loop, so tests may be sync or async as they like.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from minidist.testing.factory import Minidist
    from minidist.testing.handles import Handle

LOG_LINES = 15


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minidist")
    group.addoption("--minidist-seed", type=int, metavar="N", help="seed of all nodes; by default drawn and shown")
    group.addoption("--minidist-keep", action="store_true", help="keep the nodes' logs and data after the run")
    group.addoption("--minidist-log", default="info", metavar="LEVEL", help="log level of the nodes (info)")


def pytest_configure(config: pytest.Config) -> None:
    summary = "simulated(seeds=N): run the async test in the simulated world, once for each seed (docs/simulation.md)"
    config.addinivalue_line("markers", summary)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """A simulated test runs on the loop of its world; all others are none of our business."""
    if pyfuncitem.get_closest_marker("simulated") is None:
        return None
    from minidist.testing.simulated import run_item

    run_item(pyfuncitem)
    return True


class SessionState:
    """What one pytest process shares between its tests."""

    def __init__(self, config: pytest.Config) -> None:
        from minidist.runtime.randomness import fresh_seed
        from minidist.testing.carrier import Workshop

        given = config.getoption("--minidist-seed")
        self.seed: int = fresh_seed() if given is None else given
        self.keep: bool = config.getoption("--minidist-keep")
        self.log_level: str = config.getoption("--minidist-log")
        self.workshop = Workshop(keep=self.keep)
        self.views: dict[str, Handle] = {}

    def factory(self) -> "Minidist":
        from minidist.testing.factory import Minidist

        return Minidist(self.workshop, seed=self.seed, log_level=self.log_level, keep=self.keep)


@pytest.fixture(scope="session")
def _minidist_session(request: pytest.FixtureRequest) -> Iterator[SessionState]:
    state = SessionState(request.config)
    yield state
    state.workshop.close()


@pytest.fixture
def minidist(request: pytest.FixtureRequest) -> "Iterator[Minidist | None]":
    """A factory of nodes: `minidist.cache()`, `minidist.up("topology.toml")`. All of it is gone after the test."""
    if request.node.get_closest_marker("simulated") is not None:
        yield None  # each seed has a world of its own, which takes this place
        return
    factory = request.getfixturevalue("_minidist_session").factory()
    request.node.stash[FACTORY] = factory
    yield factory
    factory.close()


def _view(component: str, request: pytest.FixtureRequest, state: SessionState) -> Any:
    """The session's node of a component, reset for this test (started again if the last test left it dead)."""
    if component not in state.views:
        state.views[component] = state.factory().component(component, name=f"session-{component}")
    handle = state.views[component]
    if handle.state != "running":
        handle.resume()
        if handle.state != "running":
            handle.restart()
    handle.reset()
    request.node.stash.setdefault(VIEWS, []).append((state.seed, handle))
    return handle


@pytest.fixture
def minidist_cache(request: pytest.FixtureRequest, _minidist_session: SessionState) -> Any:
    """A cache that the whole session shares, as new for each test."""
    return _view("cache", request, _minidist_session)


@pytest.fixture
def minidist_balancer(request: pytest.FixtureRequest, _minidist_session: SessionState) -> Any:
    """A balancer that the whole session shares, as new for each test; upstreams are added through its admin port."""
    return _view("balancer", request, _minidist_session)


FACTORY = pytest.StashKey[Any]()
VIEWS = pytest.StashKey["list[tuple[int, Any]]"]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failed test shows, for each of its nodes, the last log lines and the faults set, and the seed."""
    report = yield
    if report.when == "call" and report.failed:
        factory = item.stash.get(FACTORY, None)
        nodes = [(factory.seed, node) for node in factory.handles()] if factory is not None else []
        for seed, node in [*nodes, *item.stash.get(VIEWS, [])]:
            report.sections.append((f"minidist {node.name} (--minidist-seed={seed})", describe(node)))
    return report


def describe(node: Any) -> str:
    """A node's state, faults and last log lines, as far as they can still be had."""
    from minidist.testing.errors import MinidistError

    try:
        faults = node.faults.list()
        lines = [f"state: {node.state}", f"faults: {faults or 'none'}"]
        return "\n".join([*lines, *node.log.splitlines()[-LOG_LINES:]])
    except (MinidistError, OSError, LookupError) as error:
        return f"(nothing more is known: {error})"
