"""A driver teaches the load generator a protocol: one file in drivers/, named in the table below.

It says which URLs, workloads and options it has, checks them, and makes channels. It knows nothing of rates, loops,
clocks, processes and reports.
"""

from __future__ import annotations

import asyncio
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from minidist.load import keys
from minidist.load.channel import Channel, Endpoint, Wiring, kind_of
from minidist.load.plan import RATIO, LoadError, Plan, shown_url
from minidist.runtime.config import KINDS, ConfigError, Option, Size
from minidist.structures.patterns import Draw

if TYPE_CHECKING:
    import ssl

#: URL schemes, and the module in drivers/ whose `DRIVER` serves them.
MODULES = (
    (("http", "https"), "http"),
    (("redis", "rediss"), "redis"),
    (("memcached",), "memcached"),
)

# Options that mean the same in several drivers.
READ_WRITE_RATIO = Option("Reads to writes in a mixed workload.", name="ratio", kind=RATIO, default=(9, 1))
TLS_CA = Option("PEM file with the authorities that the server's certificate may come from.", name="tls_ca", default="")
INSECURE = Option("Take any certificate.", name="insecure", kind=KINDS[bool], default=False)
SIZE = KINDS[Size]


class Driver(ABC):
    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]
    default_ports: ClassVar[Mapping[str, int]]
    tls_schemes: ClassVar[tuple[str, ...]] = ()
    #: Name and one line of help each; the first is the default.
    workloads: ClassVar[Mapping[str, str]]
    options: ClassVar[tuple[Option, ...]]
    #: Whether its channels can write a history.
    records: ClassVar[bool] = False

    def __init__(self, plan: Plan) -> None:
        """Raises ConfigError when the plan's URL, workload or options cannot be taken."""
        self.target = plan.target
        self.plan = plan
        known = {each.name: each for each in self.options}
        for name, value in plan.options.items():
            if name not in known:
                raise ConfigError("--" + name.replace("_", "-"), value, f"not with a {self.target.scheme} URL")
        self.values: dict[str, Any] = {each.name: plan.options.get(each.name, each.default) for each in self.options}
        if "key_pattern" in self.values:
            keys.check(self.values, plan.options)
        self._draw_key: Draw | None = None
        if plan.history and not self.records:
            allowed = f"not with a {self.target.scheme} URL, only with redis:// and memcached://"
            raise ConfigError("--history", plan.history, allowed)
        if plan.workload and plan.workload not in self.workloads:
            raise ConfigError("--workload", plan.workload, f"one of {', '.join(self.workloads)} for {self.name}")
        self.workload = plan.workload or next(iter(self.workloads))

    @property
    def label(self) -> str:
        """The workload as the report names it."""
        return self.workload

    def draw_key(self, wiring: Wiring) -> Draw:
        """What draws the number of the next key: one for all channels, so that together they scan in order."""
        if self._draw_key is None:
            self._draw_key = keys.draw(self.values, wiring.rng, wiring.share, self.plan.processes)
        return self._draw_key

    @abstractmethod
    def channel(self, wiring: Wiring) -> Channel: ...

    async def prepare(self, endpoint: Endpoint) -> None:  # noqa: B027 - most targets need nothing
        """Whatever the target needs before the load; done once, by one process, not measured. May raise LoadError."""

    def finished(self) -> None:  # noqa: B027 - most have nothing to do
        """The load is over and nothing is under way, before anybody is told so."""

    async def endpoint(self) -> Endpoint:
        """Resolves the URL's host once for the whole run: the first address that accepts. Raises LoadError."""
        target = self.target
        host, port = target.hostname or "", target.port or self.default_ports[target.scheme]
        tls = self._tls_context() if target.scheme in self.tls_schemes else None
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=1)  # SOCK_STREAM
        except OSError as error:
            raise LoadError(f"cannot resolve {host}: {error.strerror}") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        address = addresses[0] if len(addresses) == 1 else await self._first_accepting(addresses, port)
        return Endpoint(host=address, port=port, tls=tls, server_name=host)

    async def _first_accepting(self, addresses: list[str], port: int) -> str:
        for address in addresses:
            try:
                async with asyncio.timeout(self.plan.timeout_s):
                    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, address, port)
            except (OSError, TimeoutError) as error:
                kind = kind_of(error) if error.args else "connect-timeout"
                continue
            transport.abort()
            return address
        raise LoadError(f"cannot connect to {', '.join(addresses)} port {port}: {kind}")

    def _tls_context(self) -> ssl.SSLContext:
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.values["tls_ca"] or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError("--tls-ca", self.values["tls_ca"], f"a readable PEM file ({error})") from error
        if self.values["insecure"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def drivers() -> list[type[Driver]]:
    """Every driver, for the help text."""
    return [_load(module) for _, module in MODULES]


def driver_for(plan: Plan) -> Driver:
    """Raises ConfigError when no driver takes the URL, or the driver cannot take the plan."""
    scheme = plan.target.scheme
    for schemes, module in MODULES:
        if scheme in schemes:
            return _load(module)(plan)
    known = ", ".join(f"{each}://" for schemes, _ in MODULES for each in schemes)
    raise ConfigError("URL", shown_url(plan.url), known)


def _load(module: str) -> type[Driver]:
    driver: type[Driver] = importlib.import_module(f"minidist.load.drivers.{module}").DRIVER
    return driver
