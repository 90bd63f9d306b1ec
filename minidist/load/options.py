"""The options of `minidist load` as a table, and `read`, which reads them; those of the drivers are in their files."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, NoReturn

from minidist.load.driver import Driver, drivers
from minidist.load.plan import RAMP, RATE, Plan
from minidist.load.slo import SLO, Limit
from minidist.runtime.config import KINDS, ConfigError, Duration, Kind, Option

PROGRAM = "minidist load"


def _file(text: str) -> str:
    if not text:  # as of a variable that is not set
        raise ValueError(text)
    return text


_COUNT = KINDS[int]
_FILE = Kind("FILE", "a file", _file)
_DURATION = KINDS[Duration]


def _one_of(*words: str) -> Kind:
    return Kind("|".join(words), "one of " + ", ".join(words), functools.partial(_word, words))


def _word(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise ValueError(text)
    return text


#: What a plan is made of. An option's name is its field's, or the field's without `_ms`.
PLAN_OPTIONS = (
    Option("What kind of requests; see the protocols below.", name="workload"),
    Option("Open loop: start so many requests per second, whatever the server does.", name="rate", kind=RATE),
    Option("Open loop at a rate that grows (or falls) linearly from A to B.", name="ramp", kind=RAMP),
    Option("Connections of an open loop; 50 by default.", name="connections", kind=_COUNT, minimum=1, maximum=100_000),
    Option(
        "Closed loop: so many connections, each sending the next request when the last was answered. 10 by default, "
        "when neither --rate nor --ramp is given.",
        name="concurrency", kind=_COUNT, minimum=1, maximum=100_000,
    ),
    Option("How long requests are started, or of each trial of --find-saturation.", name="duration", kind=_DURATION),
    Option("A request without an answer for so long has failed.", name="timeout", kind=_DURATION),
    Option(
        "Spacing of an open loop's requests: even, or random as of many independent users.",
        name="arrivals", kind=_one_of("constant", "poisson"),
    ),
    Option("Processes that share the load; one is soon busy.", name="processes", kind=_COUNT, minimum=1, maximum=64),
    Option(
        "Open loop: arrivals beyond so many waiting or under way are skipped, and counted.",
        name="max_in_flight", kind=_COUNT, minimum=1, maximum=10_000_000,
    ),
    Option("Seeds keys, values, poisson arrivals and pauses.", name="seed", kind=_COUNT),
    Option(
        "Write what each connection did and saw, for minidist check (redis and memcached URLs).",
        name="history", kind=_FILE,
    ),
)  # fmt: skip
#: What is done with it.
RUN_OPTIONS = (
    Option(
        "Look for the highest rate that is answered in full and keeps --slo; --ramp A:B says where to look.",
        name="find_saturation", kind=KINDS[bool], default=False,
    ),
    Option("Upper limits, p99=50ms,error-rate=0.01; exit 3 when one is exceeded.", name="slo", kind=SLO, default=()),
    Option("Write the figures as a JSON object; - is standard output.", name="json", kind=_FILE),
    Option("Write a page with charts, complete in itself.", name="html", kind=_FILE),
    Option("Faults (a JSON list) set in the running cluster while the load lasts.", name="faults", kind=_FILE),
    Option("The run directory of that cluster, when several run.", name="run_dir", kind=Kind("DIR", "a path", str)),
    Option("No progress on standard error.", name="quiet", kind=KINDS[bool], default=False),
)  # fmt: skip

_DURATIONS = ("duration", "timeout")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, read."""

    plan: Plan
    find_saturation: bool = False
    slo: Sequence[Limit] = ()
    json: str | None = None
    html: str | None = None
    faults: str | None = None
    run_dir: str | None = None
    quiet: bool = False


def read(argv: Sequence[str]) -> Command:
    """`--help` prints and raises SystemExit(0). Raises ConfigError for what cannot be taken."""
    own = (*PLAN_OPTIONS, *RUN_OPTIONS)
    of_drivers = {each.name: each for driver in drivers() for each in driver.options}
    flags = {name: given for name, given in vars(_parser().parse_args(argv)).items() if given is not None}
    url = flags.pop("url")
    values = {each.name: _read(each, flags[each.name]) for each in own if each.name in flags}
    driver_values = {name: _read(each, flags[name]) for name, each in of_drivers.items() if name in flags}
    if values.get("find_saturation") and "concurrency" in values:
        raise ConfigError("--concurrency", values["concurrency"], "without --find-saturation, which uses --connections")
    if values.get("find_saturation"):
        for name in ("history", "faults"):
            if name in values:
                raise ConfigError(f"--{name}", values[name], "without --find-saturation, which runs many loads")
    plan_values = {
        each.name + "_ms" * (each.name in _DURATIONS): values.pop(each.name)
        for each in PLAN_OPTIONS
        if each.name in values
    }
    if values.get("find_saturation") and "duration_ms" not in plan_values:
        plan_values["duration_ms"] = 3000
    return Command(Plan(url=url, options=driver_values, **plan_values), **values)


def _read(option: Option, given: Any) -> Any:
    if isinstance(given, list):  # may be repeated
        return tuple(option.read(each, option.flag) for each in given)
    return option.read(given, option.flag)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            raise ConfigError(unknown.split()[0], unknown, f"the options of {PROGRAM} --help")
        of_option = re.fullmatch(r"argument (--[a-z-]+): (.*)", message)
        option, problem = of_option.groups() if of_option else ("arguments", message)
        raise ConfigError(option, problem, f"URL [--OPTION …]; see {PROGRAM} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} URL [--rate N | --ramp A:B | --concurrency N] [--OPTION …]",
        description="Sends load to a URL and reports latencies.",
        epilog=_epilog(),
    )
    parser.add_argument("url", metavar="URL", help="where the load goes, e.g. http://127.0.0.1:8080/")
    defaults = {each.name.removesuffix("_ms"): each.default for each in fields(Plan) if each.default is not MISSING}
    _add(parser.add_argument_group("load"), PLAN_OPTIONS, defaults)
    _add(parser.add_argument_group("results"), RUN_OPTIONS, {})
    for title, options in _by_protocol().items():
        _add(parser.add_argument_group(title), options, {each.name: each.default for each in options})
    return parser


def _by_protocol() -> Mapping[str, list[Option]]:
    """The drivers' options under the names of the protocols that have them."""
    of: dict[str, list[str]] = {}
    known: dict[str, Option] = {}
    for driver in drivers():
        for each in driver.options:
            of.setdefault(each.name, []).append(driver.name)
            known[each.name] = each
    groups: dict[str, list[Option]] = {}
    for name, protocols in of.items():
        groups.setdefault(" and ".join(protocols), []).append(known[name])
    return groups


def _add(group: Any, options: Iterable[Option], defaults: Mapping[str, Any]) -> None:
    for each in options:
        default = defaults.get(each.name)
        shown = each.kind.show(default) if default not in (None, "", 0, False, ()) else ""
        text = each.summary + (f" Default: {shown}." if shown else "")
        shape: dict[str, Any] = {}
        if each.kind is KINDS[bool]:
            # What is off by default is a bare flag, so that it cannot swallow the URL behind it.
            shape = {} if default else {"action": "store_const", "const": "yes"}
        elif default == () and each.name != "slo":
            shape = {"action": "append"}
        if "const" not in shape:
            shape["metavar"] = each.kind.metavar
        group.add_argument(each.flag, dest=each.name, help=text.replace("%", "%%"), **shape)


def _epilog() -> str:
    return (
        "workloads:\n"
        + "\n".join(_workloads(driver) for driver in drivers())
        + ("\n\nexit codes: 0 done, 1 the load could not be made, 2 wrong usage, 3 an objective of --slo was not kept")
    )


def _workloads(driver: type[Driver]) -> str:
    urls = ", ".join(f"{scheme}://" for scheme in driver.schemes)
    rows = [f"    {name:<9}{summary}" for name, summary in driver.workloads.items()]
    return "\n".join([f"  {urls}  (the first is the default)", *rows])
