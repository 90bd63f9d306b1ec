"""The verbs that only look: ps, logs, env, exec, status, events, top.

What they show comes from the supervisor over the control socket, except logs and past events, which are read from the
run directory and so can be read when the cluster is over (with `--name` or `--run-dir`). `-f` goes on until the
supervisor is gone: the connection of an `events` request ends with it. With `--json` stdout is exactly what the
contract says; without, it is a table for people, of which columns that nobody fills are left out.
"""

import contextlib
import json
import os
import select
import shlex
import sys
import time
from typing import Any

from minidist.cluster.control import VerbError, begin, call
from minidist.cluster.rundir import RunDir
from minidist.cluster.tail import POLL_S, Tail
from minidist.cluster.verbs.common import OK, USAGE, Parser, chosen, prefixer, table

Row = dict[str, Any]


# --- ps --------------------------------------------------------------------------------------------------------------


def ps_verb(argv: list[str]) -> int:
    parser = Parser("ps")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    answer = call(chosen(options), "ps")
    print(json.dumps(answer, indent=2) if options.json else ps_table(answer["nodes"]))
    return OK


def ps_table(nodes: list[Row]) -> str:
    """The nodes as text; columns that nobody fills are left out."""
    rows = [["NODE", "STATE", "PID", "UP", "ROLE", "REGION", "RESTARTS", "URL"]]
    for node in nodes:
        exited = "" if node["exit"] is None or node["pid"] else f" ({node['exit']})"
        rows.append(
            [
                node["name"],
                node["state"] + exited,
                str(node["pid"] or "-"),
                duration(node["uptime_s"]),
                node["role"] or "",
                node["region"] or "",
                str(node["restarts"] or ""),
                node["url"],
            ]
        )
    used = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    return table([[row[column] for column in used] for row in rows])


def duration(seconds: float | None) -> str:
    """`0.4s`, `12s`, `3m`, `5h`."""
    if seconds is None:
        return "-"
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"


# --- logs and events -------------------------------------------------------------------------------------------------


def logs_verb(argv: list[str]) -> int:
    parser = Parser("logs")
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="nodes or groups; by default all")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the cluster is down")
    options = parser.parse_args(argv)
    run_dir = chosen(options, even_if_down=True)
    names = _log_names(run_dir, options.nodes)
    tail = Tail(run_dir, names if options.nodes else ())
    alone = len(options.nodes) == 1 and len(names) == 1
    prefix = prefixer(names)

    def show(*, last: bool = False) -> None:
        for node, line in tail.read(last=last):
            print(line if alone else prefix(node) + line)
        sys.stdout.flush()

    with contextlib.suppress(KeyboardInterrupt, VerbError):
        if options.follow and run_dir.in_use():
            show()
            _until_down(run_dir, show)
    show(last=True)
    return OK


def _log_names(run_dir: RunDir, words: list[str]) -> list[str]:
    """The nodes whose logs are meant: groups become their nodes. Raises VerbError for what there is not."""
    if run_dir.in_use():
        nodes = [(row["name"], row["group"]) for row in call(run_dir, "ps")["nodes"]]
    else:
        nodes = [(path.stem, path.stem.rpartition("-")[0]) for path in sorted(run_dir.logs.glob("*.log"))]
    found = {}
    for word in words:
        named = [name for name, group in nodes if word in (name, group)]
        if not named:
            raise VerbError(f"given {word!r}, allowed: a node or group: {', '.join(name for name, _ in nodes)}", USAGE)
        found.update(dict.fromkeys(named))
    return list(found) or [name for name, _ in nodes]


def _until_down(run_dir: RunDir, each_time: Any) -> None:
    """Call `each_time` every little while until the supervisor is gone."""
    with contextlib.closing(begin(run_dir, "events")) as request:
        while True:
            readable, _, _ = select.select([request.connection], [], [], POLL_S)
            each_time()
            if readable and not request.connection.recv(65536):
                return
            if readable:
                time.sleep(POLL_S)  # there are events; they must not make us faster


def events_verb(argv: list[str]) -> int:
    parser = Parser("events")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the cluster is down")
    parser.add_argument("--json", action="store_true", help="a JSON object per line")
    options = parser.parse_args(argv)
    run_dir = chosen(options, even_if_down=True)
    if options.follow and run_dir.in_use():
        with contextlib.suppress(KeyboardInterrupt, VerbError), contextlib.closing(begin(run_dir, "events")) as request:
            for message in request:
                print(_event_line(message["item"], options.json), flush=True)
        return OK
    with open(run_dir.events, encoding="utf-8") as file:
        for line in file:
            print(_event_line(json.loads(line), options.json))
    return OK


def _event_line(event: Row, as_json: bool) -> str:
    if as_json:
        return json.dumps(event)
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"])) + f".{int(event['time'] * 1000) % 1000:03d}"
    detail = " ".join(f"{key}={_plain(value)}" for key, value in event["detail"].items() if value is not None)
    return f"{clock}  {event['node'] or '-':<12} {event['event']:<16} {detail}".rstrip()


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value)) or "-"
    return json.dumps(value) if isinstance(value, dict) else str(value)


# --- env and exec ----------------------------------------------------------------------------------------------------


def env_verb(argv: list[str]) -> int:
    options = Parser("env").parse_args(argv)
    for variable, value in call(chosen(options), "env").items():
        print(f"export {variable}={shlex.quote(value)}")
    return OK


def exec_verb(argv: list[str]) -> int:
    parser = Parser("exec")
    place = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:place])
    command = argv[place + 1 :]
    if not command:
        parser.error("given no command, allowed: minidist exec -- CMD")
    variables = call(chosen(options), "env")
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, os.environ | variables)
    except OSError as error:
        raise VerbError(f"cannot run {command[0]}: {error.strerror}", USAGE) from error


# --- status ----------------------------------------------------------------------------------------------------------


def status_verb(argv: list[str]) -> int:
    parser = Parser("status")
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="a node or a group")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    answers = call(chosen(options), "status", nodes=options.nodes)
    if options.json:
        print(json.dumps(answers[0] if len(answers) == 1 else {"nodes": answers}, indent=2))
        return OK
    for index, answer in enumerate(answers):
        print(("\n" if index else "") + _status_text(answer))
    return OK


def _status_text(status: Row) -> str:
    lines = []
    for key, value in status.items():
        if value in (None, "", [], {}):
            continue
        if isinstance(value, list) and isinstance(value[0], dict):
            lines += [
                f"{key:<16} {' '.join(f'{name}={_plain(each)}' for name, each in item.items())}" for item in value
            ]
        elif isinstance(value, dict):
            lines.append(f"{key:<16} {' '.join(f'{name}={_plain(each)}' for name, each in value.items())}")
        else:
            lines.append(f"{key:<16} {_plain(value)}")
    return "\n".join(lines)


def top_verb(argv: list[str]) -> int:
    from minidist.cluster.top import top

    parser = Parser("top")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between two looks (1)")
    options = parser.parse_args(argv)
    run_dir = chosen(options)
    if not sys.stdout.isatty():
        print(ps_table(call(run_dir, "ps")["nodes"]))
        return OK
    return top(run_dir, max(options.interval, 0.1))
