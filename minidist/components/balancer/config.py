"""The balancer's options. All durations are loop time: they are what the balancer and its neighbours owe each other."""

import re
from dataclasses import dataclass
from typing import Literal

from minidist.engines.balancing import MAX_WEIGHT
from minidist.runtime.config import Address, ConfigError, Duration, Size, WorkersConfig, option


@dataclass(frozen=True, kw_only=True)
class BalancerConfig(WorkersConfig):
    """Options of `minidist balancer`."""

    component = "balancer"
    may_listen_anywhere = True

    listen: Address = option(Address("127.0.0.1", 8080), "Where clients connect; port 0 takes any free one.")
    idle_timeout: Duration = option(
        Duration(75_000), "Close a client's kept connection after so long without a request.", clock="loop", live=True,
        aliases=("timeout",), minimum=1, why="nginx's keepalive_timeout",
    )  # fmt: skip

    # Upstreams
    upstream: tuple[str, ...] = option((), "Servers that requests go to: HOST:PORT, or HOST:PORT=WEIGHT.")
    balance: Literal["round-robin", "least-connections"] = option("round-robin", "How the next upstream is chosen.")
    connect_timeout: Duration = option(
        Duration(2000), "How long connecting to an upstream may take.", clock="loop", minimum=1,
        why="one lost SYN is repeated after 1 s",
    )  # fmt: skip
    response_timeout: Duration = option(
        Duration(60_000), "How long an upstream may take from the whole request to the head of its answer.",
        clock="loop", minimum=1, why="nginx's proxy_read_timeout",
    )  # fmt: skip
    stream_timeout: Duration = option(
        Duration(60_000), "How long a body may pause, in either direction.", clock="loop", minimum=1,
        why="nginx's proxy_read_timeout; longer than the keep-alive comments of event streams",
    )  # fmt: skip
    tunnel_timeout: Duration = option(
        Duration(3_600_000), "How long an upgraded connection (WebSocket) may be silent.", clock="loop", minimum=1,
        why="HAProxy's usual timeout tunnel",
    )  # fmt: skip
    upstream_connections: int = option(
        1024, "Connections to one upstream at once; beyond it requests get 503.", minimum=1,
        why="far above what a healthy upstream needs, below the usual limit of descriptors",
    )  # fmt: skip
    upstream_idle: int = option(
        128, "Unused connections kept to one upstream.", minimum=0, why="a burst's worth; the rest would only wait"
    )
    upstream_idle_timeout: Duration = option(
        Duration(4000), "How long an unused connection to an upstream is kept.", clock="loop", minimum=1,
        why="shorter than the 5 s after which Node.js and uvicorn close theirs, or a POST could meet a closing one",
    )  # fmt: skip

    # Requests
    head_timeout: Duration = option(
        Duration(10_000), "How long a client may take to send a request head.", clock="loop", minimum=1,
        why="a slow phone needs one second; slowloris wants minutes",
    )  # fmt: skip
    max_head: Size = option(
        Size(32 * 1024), "Most bytes of a request's or response's head.", minimum=1024, why="nginx's 4 × 8k"
    )
    max_fields: int = option(100, "Most header lines of a head.", minimum=10, why="as nginx and httpd")
    max_body: Size = option(
        Size(0), "Most bytes of a request body; 0 for any.", why="bodies stream, so size costs no memory"
    )
    retries: int = option(
        3, "How often a request is tried again elsewhere when that is safe.", minimum=0, maximum=16,
        why="finds the healthy one of four without multiplying an overload much",
    )  # fmt: skip
    retry_buffer: Size = option(
        Size(64 * 1024), "Most bytes of a request kept to send it again.", why="most requests that are not uploads"
    )
    forwarded: Literal["x-forwarded", "forwarded", "both", "none"] = option(
        "x-forwarded", "Which fields tell the upstream about the client: X-Forwarded-*, RFC 7239's Forwarded."
    )
    trust_forwarded: bool = option(
        False, "Continue the X-Forwarded-* that came with a request instead of dropping them.",
        why="clients can write anything there; trust only another proxy in front",
    )  # fmt: skip
    via: str = option("", "Name to announce in Via; empty leaves the field out.")
    upgrade: tuple[str, ...] = option(
        ("websocket",), "Protocols that a connection may be upgraded to.",
        why="each is a tunnel that nobody inspects; h2c would carry requests past every rule here",
    )  # fmt: skip
    access_log: bool = option(False, "Log a line for every request.", live=True)

    # Health
    check: str = option(
        "/", "Path of the health check's GET; `tcp` only connects, `off` checks nothing.",
        why="every web server has a /",
    )  # fmt: skip
    check_expect: str = option(
        "200-499", "Statuses of a passed health check, FROM-TO.",
        why="a program without a page at / answers 404 and is well; 5xx is not",
    )  # fmt: skip
    check_interval: Duration = option(
        Duration(1000), "Time between health checks of an upstream.", clock="loop", minimum=10,
        why="a dead upstream is found in three seconds; a check costs less than a request",
    )  # fmt: skip
    check_timeout: Duration = option(
        Duration(1000), "How long a health check may take.", clock="loop", minimum=1, why="as the interval"
    )
    rise: int = option(2, "Passed checks in a row that make an upstream up.", minimum=1, why="HAProxy's")
    fall: int = option(3, "Failed checks in a row that make an upstream down.", minimum=1, why="HAProxy's")
    eject_after: int = option(
        5, "Failed requests in a row that eject an upstream; 0 never.", minimum=0, why="Envoy's outlier detection"
    )
    eject_base: Duration = option(
        Duration(30_000), "How long the first ejection lasts; the second twice as long …", clock="loop", minimum=1,
        why="Envoy's; a passed health check ends it sooner",
    )  # fmt: skip
    eject_max: Duration = option(Duration(300_000), "The longest ejection.", clock="loop", minimum=1, why="Envoy's")
    eject_max_percent: int = option(
        50, "Most upstreams ejected at a time, in percent; one of two or more always may be.", minimum=0, maximum=100,
        why="a fault of everybody is no reason to have nobody",
    )  # fmt: skip
    panic_percent: int = option(
        0, "With a smaller share of usable upstreams than this, health is ignored; 0 never.", minimum=0, maximum=100,
        why="Envoy's 50 surprises its users: an upstream known to be down gets requests",
    )  # fmt: skip

    def validate(self) -> None:
        super().validate()
        for text in self.upstream:
            parse_upstream(text)
        if not self.check.startswith("/") and self.check not in ("tcp", "off"):
            raise ConfigError("--check", self.check, "a path such as /healthz, tcp, off")
        self.expected_statuses()

    def upstreams(self) -> list[tuple[str, int]]:
        """The configured upstreams as (address, weight)."""
        return [parse_upstream(text) for text in self.upstream]

    def expected_statuses(self) -> range:
        match = re.fullmatch(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?", self.check_expect)
        if match is None:
            raise ConfigError("--check-expect", self.check_expect, "a status such as 200, or a range such as 200-399")
        return range(int(match[1]), int(match[2] or match[1]) + 1)


def parse_upstream(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `HOST:PORT=WEIGHT` as (address in its normal form, weight). Raises ConfigError."""
    address_text, equals, weight_text = text.partition("=")
    for scheme in ("http://",):
        address_text = address_text.removeprefix(scheme).rstrip("/")
    try:
        address = Address.parse(address_text)
        weight = int(weight_text) if equals else 1
    except ValueError:
        raise ConfigError("--upstream", text, "HOST:PORT or HOST:PORT=WEIGHT") from None
    if not 1 <= weight <= MAX_WEIGHT:
        raise ConfigError("--upstream", text, f"a weight from 1 to {MAX_WEIGHT}")
    return str(address), weight
