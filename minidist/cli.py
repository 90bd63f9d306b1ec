"""The program `minidist`: which word runs what. Parsing of what follows the word belongs to what it runs.

Every module is imported only when its word is used, so that a daemon does not pay for the launcher nor the launcher for
the daemons.
"""

import errno
import gc
import os
import sys
from collections.abc import Sequence

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
DAEMON_NAMES = ("cache", "balancer")
TOOLS = {
    "demo": "a small cluster under load, with a node that dies: look what happens",
    "load": "send load to a URL and report latencies",
    "check": "judge a history of what clients did and saw",
    "sim": "run a topology or a scenario in a simulated world, from a seed",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one word of the command line; the result is the exit code."""
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us: what we say goes nowhere
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    try:
        code = answer(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`minidist ps | head`): nothing is left to say.
        _say_no_more()
        return OK
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"minidist: cannot write the output: {error.strerror}", file=sys.stderr)
        _say_no_more()
        return FAILED
    return code


def _say_no_more() -> None:
    """What is still buffered cannot be written; at the end Python would try again, and complain."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def answer(words: list[str]) -> int:
    """Help, the version, or a word that is run."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return OK if words else USAGE
    if words[0] in ("--version", "version"):
        from minidist import __version__

        print(f"minidist {__version__}")
        return OK
    return run(words[0], words[1:])


def run(word: str, rest: list[str]) -> int:
    if word in DAEMON_NAMES:
        gc.disable()  # until the daemon has started: Collector.install
        from minidist.components import node_type
        from minidist.runtime.daemon import main as daemon

        return daemon(node_type(word), rest)
    if word == "load":
        from minidist.load.command import main as load

        return load(rest)
    if word == "sim":
        from minidist.sim.command import main as sim

        return sim(rest)
    if word == "check":
        from minidist.check import main as check

        return check(rest)
    if word == "demo":
        from minidist.cluster.demo.command import main as demo

        return demo(rest)
    from minidist.cluster.verbs import VERBS
    from minidist.cluster.verbs import main as verb

    if word in VERBS:
        return verb(word, rest)
    known = [*DAEMON_NAMES, *TOOLS, *VERBS]
    print(f"minidist: given {word!r}, allowed: one of {', '.join(known)}", file=sys.stderr)
    return USAGE


def usage() -> str:
    """What `minidist --help` prints."""
    from minidist.cluster.verbs import VERBS
    from minidist.components import COMPONENTS

    def section(title: str, rows: dict[str, str]) -> str:
        return f"{title}\n" + "".join(f"  {word:<10} {text}\n" for word, text in rows.items())

    daemons = {component.name: component.summary for component in COMPONENTS}
    return (
        "usage: minidist WORD …      (minidist WORD --help says more)\n\n"
        + section("Try it:", TOOLS)
        + section("\nA daemon by itself:", daemons)
        + section("\nA cluster from a topology file:", VERBS)
    ).rstrip()
