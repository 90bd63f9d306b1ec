"""The verbs that do something to nodes: down, stop, start, restart, kill, pause, resume, scale, wait, clock."""

import os
import shutil
import signal

from minidist.cluster.control import VerbError, call
from minidist.cluster.rundir import RunDir
from minidist.cluster.verbs.common import OK, Parser, add_timeout, chosen, say, seconds


def down_verb(argv: list[str]) -> int:
    parser = Parser("down")
    add_timeout(parser, "5s", "how long nodes may take before they are killed")
    parser.add_argument(
        "--grace", type=seconds, default=10.0, metavar="DURATION", help="a supervisor silent for longer is killed (10s)"
    )
    parser.add_argument("--clean", action="store_true", help="remove the run directory too: data, logs, events")
    options = parser.parse_args(argv)
    run_dir = chosen(options, even_if_down=options.clean)
    if run_dir.in_use():
        _go_down(run_dir, options.timeout, options.grace)
    if options.clean:
        shutil.rmtree(run_dir.path)
    return OK


def _go_down(run_dir: RunDir, timeout_s: float, grace_s: float) -> None:
    """Ask the supervisor; one that does not answer is killed, and the guard does the rest."""
    try:
        call(run_dir, "down", silence_s=timeout_s + grace_s, timeout_s=timeout_s)
    except VerbError:
        pid = run_dir.supervisor_pid()
        if pid is not None and run_dir.in_use():
            say(f"the supervisor (pid {pid}) does not answer; killing it and everything it started")
            os.kill(pid, signal.SIGKILL)
    run_dir.wait_until_free()


def _nodes_verb(verb: str, parser: Parser, argv: list[str]) -> int:
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="a node or a group")
    options = parser.parse_args(argv)
    arguments = {key: value for key, value in vars(options).items() if key not in ("name", "run_dir")}
    call(chosen(options), verb, progress=say, **arguments)
    return OK


def stop_verb(argv: list[str]) -> int:
    parser = Parser("stop")
    _stop_timeout(parser)
    return _nodes_verb("stop", parser, argv)


def start_verb(argv: list[str]) -> int:
    parser = Parser("start")
    parser.add_argument(
        "--timeout", dest="timeout_s", type=seconds, default=30.0, metavar="DURATION", help="how long to wait (30s)"
    )
    return _nodes_verb("start", parser, argv)


def restart_verb(argv: list[str]) -> int:
    parser = Parser("restart")
    _stop_timeout(parser)
    parser.add_argument("--rolling", action="store_true", help="one node after the other, each ready before the next")
    return _nodes_verb("restart", parser, argv)


def _stop_timeout(parser: Parser) -> None:
    parser.add_argument(
        "--timeout", dest="timeout_s", type=seconds, default=5.0, metavar="DURATION", help="then SIGKILL (5s)"
    )


def kill_verb(argv: list[str]) -> int:
    return _nodes_verb("kill", Parser("kill"), argv)


def pause_verb(argv: list[str]) -> int:
    return _nodes_verb("pause", Parser("pause"), argv)


def resume_verb(argv: list[str]) -> int:
    return _nodes_verb("resume", Parser("resume"), argv)


def scale_verb(argv: list[str]) -> int:
    parser = Parser("scale")
    parser.add_argument("groups", nargs="+", metavar="GROUP=N")
    add_timeout(parser, "30s", "how long new nodes may take to be ready")
    options = parser.parse_args(argv)
    groups = {}
    for given in options.groups:
        group, _, count = given.partition("=")
        if not group or not count.isascii() or not count.isdigit():
            parser.error(f"given {given!r}, allowed: GROUP=N")
        groups[group] = int(count)
    call(chosen(options), "scale", progress=say, groups=groups, timeout_s=options.timeout)
    return OK


def wait_verb(argv: list[str]) -> int:
    parser = Parser("wait")
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="nodes or groups; by default all")
    add_timeout(parser, "30s", "how long to wait")
    options = parser.parse_args(argv)
    call(chosen(options), "wait", nodes=options.nodes, timeout_s=options.timeout)
    return OK


def clock_verb(argv: list[str]) -> int:
    parser = Parser("clock")
    parser.usage = "minidist clock NODE…|--all advance DURATION"
    parser.add_argument("--all", action="store_true", help="every node of minidist's own")
    parser.add_argument("words", nargs="*", metavar="NODE… advance DURATION", help="such as: cache advance 1h")
    own, negative = _without_negative(argv)
    options = parser.parse_args(own)
    words = options.words + negative
    if len(words) < 2 or words[-2] != "advance":
        parser.error(
            f"given {' '.join(words) or 'nothing'!r}, allowed: NODE advance DURATION, or --all advance DURATION"
        )
    nodes = words[:-2]
    if bool(nodes) == options.all:
        parser.error("given " + ("nodes and --all" if nodes else "no node") + ", allowed: nodes, or --all")
    for each in call(chosen(options), "clock", nodes=nodes, all=options.all, advance=words[-1]):
        print(f"{each['name']}  offset {each['clock_offset_ms']} ms")
    return OK


def _without_negative(argv: list[str]) -> tuple[list[str], list[str]]:
    """`advance -1h` ends the arguments: the duration must not be taken for an option."""
    if len(argv) >= 2 and argv[-2] == "advance" and argv[-1].startswith("-"):
        return argv[:-2], argv[-2:]
    return argv, []
