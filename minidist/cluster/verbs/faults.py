"""The verbs about faults: partition, heal, and fault add, ls, rm. On stdout are ids alone, for scripts to keep."""

import json
from typing import Any

from minidist.cluster.control import call
from minidist.cluster.verbs.common import OK, USAGE, Parser, chosen, say, table
from minidist.runtime.faults.spec import PARAMETERS

KINDS = (*(kind.value for kind in PARAMETERS), "kill", "pause")
COMMON = {
    "direction": "in, out or both",
    "probability": "how likely it strikes, 0 to 1",
    "times": "strike so often, then end",
    "duration": "end after this time",
    "seed": "seeds its choices",
    "at": "begin after this time",
}
FAULT_USAGE = """\
usage: minidist fault add KIND --on NODE [--peer NODE] …   (minidist fault add --help)
       minidist fault ls [--json]
       minidist fault rm ID"""


def partition_verb(argv: list[str]) -> int:
    parser = Parser("partition")
    parser.usage = "minidist partition A,B C,D [--one-way]"
    parser.add_argument("sides", nargs="+", metavar="A,B C,D", help='two lists of nodes or groups, or one "A,B | C,D"')
    parser.add_argument("--one-way", action="store_true", help="only what the first side sends is lost")
    options = parser.parse_args(argv)
    text = " ".join(options.sides)
    halves = text.split("|") if "|" in text else options.sides
    sides = [_names(half) for half in halves]
    if len(sides) != 2 or not all(sides):
        parser.error(f'given {text!r}, allowed: two sides, as A,B C,D or "A,B | C,D"')
    print(call(chosen(options), "partition", side=sides[0], other=sides[1], one_way=options.one_way))
    return OK


def heal_verb(argv: list[str]) -> int:
    parser = Parser("heal")
    parser.add_argument("--all", action="store_true", help="every fault, not only partitions")
    options = parser.parse_args(argv)
    for fault_id in call(chosen(options), "heal", all=options.all):
        say(f"removed {fault_id}")
    return OK


def fault_verb(argv: list[str]) -> int:
    verbs = {"add": _add, "ls": _ls, "rm": _rm}
    if argv and argv[0] in verbs:
        return verbs[argv[0]](argv[1:])
    if argv and argv[0] in ("-h", "--help"):
        print(FAULT_USAGE)
        return OK
    say(FAULT_USAGE)
    return USAGE


def _names(text: str) -> list[str]:
    return [name for name in text.replace(",", " ").split() if name]


def _add(argv: list[str]) -> int:
    parser = Parser("fault add")
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--on", required=True, action="append", metavar="NODE", help="where it happens: node or group")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NODE",
        help="only towards: node, group, client:NAME or HOST:PORT",
    )
    for name, text in COMMON.items():
        parser.add_argument(f"--{name}", help=text)
    for name, kinds in _parameters().items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", dest=f"of_{name}", metavar="VALUE", help=f"of {', '.join(kinds)}"
        )
    options = vars(parser.parse_args(_joined_negatives(argv)))
    given = {name: options[name] for name in COMMON} | {name: options[f"of_{name}"] for name in _parameters()}
    parameters = {name: value for name, value in given.items() if value is not None}
    for name in ("on", "peer"):
        if not all(map(_names, options[name])):  # as of a variable that is not set: it does not mean everyone
            parser.error(f"--{name}: given '', allowed: a node or group, as in --{name} NODE")
    on = [name for each in options["on"] for name in _names(each)]
    peer = [name for each in options["peer"] for name in _names(each)]
    run_dir = chosen(parser.parse_args(_joined_negatives(argv)))
    print(call(run_dir, "fault-add", kind=options["kind"], on=on, peer=peer, parameters=parameters))
    return OK


def _joined_negatives(argv: list[str]) -> list[str]:
    """`--by -1h` as `--by=-1h`: a negative duration must not be taken for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--by" and word.startswith("-"):
            joined[-1] = f"--by={word}"
        else:
            joined.append(word)
    return joined


def _parameters() -> dict[str, list[str]]:
    """Every parameter of a kind, with the kinds that have it."""
    found: dict[str, list[str]] = {}
    for kind, parameters in PARAMETERS.items():
        for name in parameters:
            found.setdefault(name, []).append(kind.value)
    return found


def _ls(argv: list[str]) -> int:
    parser = Parser("fault ls")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    faults: list[dict[str, Any]] = call(chosen(options), "fault-ls")
    if options.json:
        print(json.dumps({"faults": faults}, indent=2))
        return OK
    rows = [["ID", "KIND", "ON", "PEER", "FIRED", "PARAMETERS"]]
    for fault in faults:
        others = {key: value for key, value in fault.items() if key not in ("id", "kind", "on", "peer", "fired")}
        shown = " ".join(f"{key}={value}" for key, value in others.items())
        rows.append(
            [fault["id"], fault["kind"], ",".join(fault["on"]), ",".join(fault["peer"]), str(fault["fired"]), shown]
        )
    print(table(rows))
    return OK


def _rm(argv: list[str]) -> int:
    parser = Parser("fault rm")
    parser.add_argument("id", metavar="ID")
    options = parser.parse_args(argv)
    call(chosen(options), "fault-rm", id=options.id)
    return OK
