"""The cluster verbs of the command line. One table says which module has which verb; each module is imported only when
its verb is used, since `up` must have forked before anything slow is imported.

A verb is a function from its arguments to an exit code: 0 done; 1 failed at run time; 2 wrong usage.
"""

import importlib
import sys
from collections.abc import Callable

VERBS = {
    "up": "start the cluster of minidist.toml (-d: in the background)",
    "down": "stop it",
    "ps": "list its nodes",
    "logs": "show what nodes print (-f: go on)",
    "wait": "wait until nodes are ready",
    "env": "print where everything is, as shell variables",
    "exec": "run a command with those variables",
    "run": "up, a command with those variables, down",
    "stop": "stop nodes: SIGTERM, then SIGKILL",
    "start": "start nodes that are down",
    "restart": "stop and start nodes (--rolling: one by one)",
    "kill": "crash nodes: SIGKILL",
    "pause": "stop nodes' time: SIGSTOP",
    "resume": "let it go on: SIGCONT",
    "scale": "change how many nodes a group has",
    "status": "what nodes say about themselves",
    "clock": "move nodes' service time",
    "events": "what happened (-f: go on)",
    "partition": "cut the network between two sides",
    "heal": "end partitions (--all: every fault)",
    "fault": "add, list and remove faults",
    "top": "a live table of the nodes",
}

_MODULES = {
    "up": "up",
    "run": "up",
    "down": "nodes",
    "stop": "nodes",
    "start": "nodes",
    "restart": "nodes",
    "kill": "nodes",
    "pause": "nodes",
    "resume": "nodes",
    "scale": "nodes",
    "wait": "nodes",
    "clock": "nodes",
    "ps": "looking",
    "logs": "looking",
    "env": "looking",
    "exec": "looking",
    "status": "looking",
    "events": "looking",
    "top": "looking",
    "partition": "faults",
    "heal": "faults",
    "fault": "faults",
}


def main(verb: str, argv: list[str]) -> int:
    """Run one verb; the result is the exit code."""
    from minidist.cluster.control import VerbError

    module = importlib.import_module(f"minidist.cluster.verbs.{_MODULES[verb]}")
    function: Callable[[list[str]], int] = getattr(module, f"{verb}_verb")
    try:
        return function(argv)
    except VerbError as error:
        print(f"minidist {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit as leaving:  # argparse: --help, or a usage error that it has printed
        return leaving.code if isinstance(leaving.code, int) else 2
