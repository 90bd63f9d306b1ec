"""What a scenario is given: a world with nodes, clients, faults, a history and a judge. See docs/simulation.md.

    async def scenario(sim):
        cache = await sim.cache()
        shop = await sim.program(main, env={"CACHE_URL": cache.url}, replicas=2)
        for node in shop:
            sim.client(shopper(sim, node.url))
        await sim.trial()                # faults for a while, heal, everybody succeeds again, clients stop
        sim.check("register")            # is what the clients recorded possible?

The scenario itself is code of a host, as its clients are: it may use sockets, and faults concern it. It fails by any
exception, by `sim.fail(text)`, or by an exception that nobody handled anywhere; it is stuck when somebody makes no
progress after everything was healed.
"""

import asyncio
import contextvars
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from minidist.cluster.topology import COMMAND, Group, Topology, TopologyError, parse
from minidist.components import NAMES, import_later, node_type
from minidist.engines.checking import MODELS, check
from minidist.engines.checking.history import read
from minidist.engines.checking.operation import Operation
from minidist.engines.checking.verdict import Budget, Verdict
from minidist.run import Entry, find
from minidist.runtime.config import ConfigError
from minidist.runtime.node import Node
from minidist.sim.capture import NodeLogs
from minidist.sim.cluster import SimCluster, SimNode
from minidist.sim.current import current_host
from minidist.sim.errors import SimulationError
from minidist.sim.faults import Schedule, Spec
from minidist.sim.handles import Cluster, FaultHandle, Handle, Starting
from minidist.sim.host import Host
from minidist.sim.record import History
from minidist.sim.swarm import ENOUGH_FAULTS, ENOUGH_KINDS, draw
from minidist.sim.world import World
from minidist.testing.errors import NotSupported

T = TypeVar("T")

DEFAULT_DURATION_S = 60.0
RECOVERY_S = 20.0  # the longest back-off and time-out of what we simulate, and some more
LAST_WORDS_S = 5.0
MAX_MORE = 3  # how often random faults go on because too few took effect
LOOK_EVERY_S = 0.1
SCENARIO_HOST = "test"
RANDOM = "random"

Faults = str | Sequence[Spec] | None


class NoProgressError(SimulationError):
    """Everything is healed, and somebody still does not succeed."""


class CheckFailedError(AssertionError):
    """What the clients saw is impossible for the model; the text has the evidence."""


class Simulation:
    """One world with everything in it. `faults` are what `trial` plays: "random", a list of faults, or none."""

    def __init__(self, world: World, *, faults: Faults = None, duration_s: float = DEFAULT_DURATION_S) -> None:
        self.world = world
        self.seed = world.seed
        self.faults = faults
        self.duration_s = duration_s
        self.random = world.streams.of("scenario")
        self.cluster = SimCluster(world)
        self.schedule = Schedule(self.cluster)
        self.history = History(world)
        self.verdicts: list[Verdict] = []
        self.problems: list[str] = []
        self.error: Exception | None = None  # what ended the scenario
        self.file = ""  # the topology's, for the failure bundle
        self.working = True  # clients go on while it is
        self.logs = NodeLogs()
        self.lived = False  # a liveness phase was held
        self.host = world.host(SCENARIO_HOST)

    @property
    def now_s(self) -> float:
        """Virtual seconds since the world began."""
        return self.world.now_s

    # --- nodes ------------------------------------------------------------------------------------------------------

    def cache(self, **options: Any) -> Starting:
        """A cache (Redis' protocol)."""
        return self.component("cache", **options)

    def balancer(self, **options: Any) -> Starting:
        """An HTTP balancer: `balancer(upstream=web)`."""
        return self.component("balancer", **options)

    def component(self, component: str, *, replicas: int = 1, name: str = "", **options: Any) -> Starting:
        """A group of a component; options as on its command line, with underscores. To be awaited."""
        if component not in NAMES:
            raise ConfigError("component", component, f"one of {', '.join(NAMES)}")
        group = Group(self._name(name or component), component, replicas=replicas, options=_plain(options))
        return self._starting(group)

    def node(self, kind: type[Node], *, replicas: int = 1, name: str = "", **options: Any) -> Starting:
        """A group of a Node class of your own. To be awaited."""
        component = kind.config_type.component
        group = Group(self._name(name or component), component, replicas=replicas, options=_plain(options))
        return self._starting(group, kind=kind)

    def program(
        self,
        entry: Entry | str,
        *,
        replicas: int = 1,
        name: str = "program",
        env: Mapping[str, str] | None = None,
        ready: str = "tcp",
    ) -> Starting:
        """Your own asyncio program: `await entry(env)` serves on `env["PORT"]`. `ready` is tcp or http:/PATH.

        `entry` is a coroutine function or `package.module:function`.
        """
        if not isinstance(entry, str) and not callable(entry):
            raise NotSupported("a command: not in the simulated world, which runs coroutines; give it the entry")
        if isinstance(entry, str):
            entry = outside(find, entry)
        group = Group(self._name(name), COMMAND, replicas=replicas, env=dict(env or {}), ready=ready)
        return self._starting(group, entry=entry)

    def up(self, file: str | Path) -> Cluster:
        """A whole topology file: `cluster["store"]`. To be awaited. Raises TopologyError."""
        return self.topology(outside(read_topology, Path(file)))

    def topology(self, topology: Topology) -> Cluster:
        """A topology that has been read. To be awaited."""
        self.file = topology.file
        groups = self.cluster.add(topology)
        handles = {group.name: Handle(self, group.name, self.cluster.groups[group.name]) for group in groups}
        return Cluster(self, handles, self.cluster.up(groups))

    def _starting(self, group: Group, **how: Any) -> Starting:
        nodes = self.cluster.add_group(group, **how)
        return Starting(Handle(self, group.name, nodes), self.cluster.up([group]))

    def _name(self, wanted: str) -> str:
        """The first of a name keeps it, later ones get a number: cache, cache2, …"""
        number, name = 1, wanted
        while name in self.cluster.groups:
            number += 1
            name = f"{wanted}{number}"
        return name

    async def stop_nodes(self, nodes: Sequence[SimNode], timeout_s: float) -> None:
        """As SIGTERM: drain and end, and after `timeout_s` a crash."""
        for node in nodes:
            if node.running and node.task is not None:
                if node.node is None:
                    node.task.cancel()
                    await asyncio.wait([node.task], timeout=timeout_s)
                else:
                    await node.host.start(_stop(node.node, timeout_s))
            node.host.crash()

    async def restart_nodes(self, nodes: Sequence[SimNode]) -> None:
        await self.stop_nodes([node for node in nodes if node.running], 5.0)
        for node in nodes:
            node.host.crash()
            self.cluster.restart(node.name)
        await self.cluster.until_ready(nodes)

    # --- clients ----------------------------------------------------------------------------------------------------

    def client(self, work: Coroutine[Any, Any, Any], *, name: str = "") -> Host:
        """Run a coroutine on a host of its own. It should go on while `sim.working`."""
        host = self.world.host(name or f"client-{len(self.world.hosts)}")
        host.start(work, name=host.name)
        return host

    # --- faults -----------------------------------------------------------------------------------------------------

    def partition(
        self, side: "Sequence[Handle | str]", other: "Sequence[Handle | str]", *, one_way: bool = False
    ) -> FaultHandle:
        """No bytes between two sides; with `one_way`, none from the first to the second."""
        sides = [[each.name if isinstance(each, Handle) else each for each in nodes] for nodes in (side, other)]
        return FaultHandle(self.schedule.set({"kind": "partition", "sides": sides, "one_way": one_way}))

    def heal(self, *, everything: bool = False) -> None:
        """End every partition, or with `everything` every fault."""
        for fault in self.schedule.faults:
            if everything or fault.kind == "partition":
                fault.end()

    async def trial(
        self, faults: Faults = None, *, duration_s: float | None = None, without: Collection[str] = ()
    ) -> None:
        """Faults for a while; then all is healed, and every client that records operations must succeed again.

        Without `faults`, those of the command line. Random ones go on as long again when too few of them took effect;
        kinds that this scenario cannot use are named in `without`. Afterwards the clients have stopped. Raises
        FaultError, NoProgressError.
        """
        chosen = self.faults if faults is None else faults
        duration_s = self.duration_s if duration_s is None else duration_s
        await self._befall(chosen, duration_s, without)
        for _ in range(MAX_MORE if chosen == RANDOM else 0):
            fired = self.schedule.fired()
            if sum(fired.values()) < ENOUGH_FAULTS or len(fired) < ENOUGH_KINDS:
                await self._befall(chosen, duration_s, without)
        self.schedule.heal()
        await self.recovered()
        self.working = False
        await asyncio.sleep(LAST_WORDS_S)

    async def _befall(self, faults: Faults, duration_s: float, without: Collection[str]) -> None:
        """Faults, each at its time, for so long."""
        if faults == RANDOM:
            faults = draw(self.cluster, self.world.streams.faults, duration_s, without=without)
        assert not isinstance(faults, str), "faults are random, a list, or None"
        self.schedule.declare(faults or ())
        self.schedule.begin()
        await asyncio.sleep(duration_s)

    async def recovered(self, timeout_s: float = RECOVERY_S) -> None:
        """Until every client has succeeded since this was called. Raises NoProgressError."""
        self.lived = True
        since_s = self.now_s

        def waiting() -> list[str]:
            return [each.name for each in self.history.processes if each.last_ok_s <= since_s]

        try:
            await self.until(lambda: not waiting(), timeout_s)
        except NoProgressError:
            text = f"{timeout_s:g} s after everything was healed these have not succeeded: {', '.join(waiting())}"
            raise NoProgressError(text) from None

    async def until(self, condition: Callable[[], object], timeout_s: float = RECOVERY_S, what: str = "") -> None:
        """Wait in virtual time until a condition holds. Raises NoProgressError."""
        deadline_s = self.now_s + timeout_s
        while not condition():
            if self.now_s > deadline_s:
                raise NoProgressError(f"not within {timeout_s:g} s: {what or 'the condition'}")
            await asyncio.sleep(LOOK_EVERY_S)

    # --- judgement --------------------------------------------------------------------------------------------------

    def fail(self, problem: str) -> None:
        """Something is wrong; the run goes on, and has failed."""
        self.problems.append(problem)

    def check(self, model: str, *, only: Callable[[Operation], bool] = lambda operation: True) -> Verdict:
        """Judge what the clients recorded, or some of it (models: see `minidist check`). Raises CheckFailedError."""
        if model not in MODELS:
            raise ConfigError("model", model, f"one of {', '.join(MODELS)}")
        operations = [operation for operation in read(self.history.lines) if only(operation)]
        verdict = check(operations, model, Budget())
        self.verdicts.append(verdict)
        if verdict.violations:
            found = verdict.violations[0]
            raise CheckFailedError("\n".join([f"{found.name}: {found.headline}", *found.reasons]))
        if verdict.gave_up:
            raise CheckFailedError("not judged: " + "; ".join(verdict.gave_up))
        return verdict


def read_topology(path: Path) -> Topology:
    """The topology of a file, with everything imported that it will need. Raises TopologyError, EntryError.

    What a module does when it is first imported (drawing random bytes, say) must not belong to one run and not to the
    next, so this is done before a world begins, or at least outside of any host.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TopologyError(str(path), "", error.strerror, "a topology file") from error
    topology = parse(text, file=str(path), directory_name=path.absolute().parent.name)
    for group in topology.groups.values():
        if not group.is_program:
            node_type(group.component)
            import_later(group.component)
        elif group.entry:
            find(group.entry)
        else:
            allowed = "package.module:main, which the simulation runs instead of the command"
            raise TopologyError(topology.file, f"groups.{group.name}.entry", None, allowed)
    return topology


def outside(function: Callable[..., T], *args: Any) -> T:
    """Call a function as nobody's code: with real files and real time."""
    context = contextvars.copy_context()
    context.run(current_host.set, None)
    return context.run(function, *args)


async def _stop(node: Node, timeout_s: float) -> None:
    await node.drain(timeout_s)
    await node.stop()


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a topology file has them: a handle stands for its addresses."""
    return {key: given.bootstrap if isinstance(given, Handle) else given for key, given in options.items()}
