"""`up` and `run`: the verbs that begin a cluster. They fork the supervisor before importing anything slow."""

import contextlib
import os
import select
import signal
import sys
from typing import Any

from minidist.cluster.control import Call, VerbError, begin, call
from minidist.cluster.rundir import RunDir
from minidist.cluster.supervisor import DEFAULT_FILE, DEFAULT_TIMEOUT_S, Launch, LaunchError, UpOptions, launch
from minidist.cluster.tail import POLL_S, Tail
from minidist.cluster.verbs.common import FAILED, OK, USAGE, Parser, prefixer, say, seconds

INTERRUPTED = 130


class Interrupted(Exception):
    """SIGINT or SIGTERM."""


def _parser(verb: str) -> Parser:
    parser = Parser(verb)
    parser.add_argument("file", nargs="?", default=DEFAULT_FILE, metavar="FILE", help=f"the topology ({DEFAULT_FILE})")
    parser.add_argument(
        "--timeout", type=seconds, default=DEFAULT_TIMEOUT_S, metavar="DURATION", help="give up after (30s)"
    )
    return parser


def up_verb(argv: list[str]) -> int:
    parser = _parser("up")
    parser.add_argument("-d", "--detach", action="store_true", help="return when everything is ready")
    options = parser.parse_args(argv)
    _raise_on_signals()
    try:
        launched, starting = _launch(options)
    except Interrupted:
        return INTERRUPTED  # the guard sees our end, and ends what there is
    try:
        if options.detach:
            _until_ready(launched, starting)
            if not launched.already_running:
                launched.detach()
            return OK
        return _foreground(launched, starting)
    except Interrupted:
        _go_down(launched.run_dir)
        return INTERRUPTED if options.detach else OK


def run_verb(argv: list[str]) -> int:
    parser = _parser("run")
    own, command = _split(argv)
    options = parser.parse_args(own)
    if not command:
        parser.error("given no command, allowed: minidist run [FILE] -- CMD")
    _raise_on_signals()
    try:
        launched, starting = _launch(options)
    except Interrupted:
        return INTERRUPTED
    try:
        _until_ready(launched, starting)
        return _command(command, call(launched.run_dir, "env"))
    except Interrupted:
        return INTERRUPTED
    finally:
        if not launched.already_running:
            _go_down(launched.run_dir)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first `--`."""
    place = argv.index("--") if "--" in argv else len(argv)
    return argv[:place], argv[place + 1 :]


def _command(command: list[str], variables: dict[str, str]) -> int:
    """Run a command with the cluster's variables; its exit code as a shell would tell it.

    It stays in our process group, so that the terminal is its too, and dies with us, however that happens.
    """
    import subprocess

    from minidist.cluster import guard

    try:
        with guard.watching() as mark:
            environment = os.environ | variables | {guard.MARK_VARIABLE: mark}
            code = subprocess.run(command, env=environment, check=False).returncode
    except OSError as error:
        raise VerbError(f"cannot run {command[0]}: {error.strerror}", USAGE) from error
    return code if code >= 0 else 128 - code


def _raise_on_signals() -> None:
    def interrupt(number: int, frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)  # the second one ends us, and the guard everything else
        raise Interrupted

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)


def _launch(options: Any) -> tuple[Launch, Call]:
    """A supervisor that serves, and the request whose end is that everything is ready."""
    wanted = UpOptions(options.file, options.name, options.run_dir, options.timeout)
    try:
        launched = launch(wanted)
    except LaunchError as error:
        raise VerbError(str(error), error.exit_code) from error
    if launched.already_running:
        arguments = {"file": os.path.abspath(wanted.file), "name": wanted.name, "timeout_s": wanted.timeout_s}
        return launched, begin(launched.run_dir, "up", **arguments)
    return launched, begin(launched.run_dir, "attach")


def _until_ready(launched: Launch, starting: Call) -> None:
    try:
        for message in starting:
            say(message["progress"])
    except VerbError:
        if not launched.already_running:
            launched.run_dir.wait_until_free()
        raise


def _go_down(run_dir: RunDir) -> None:
    try:
        call(run_dir, "down", silence_s=15.0, timeout_s=5.0)
    except VerbError:
        pass  # it is going down already
    run_dir.wait_until_free()


def _foreground(launched: Launch, starting: Call) -> int:
    """Stream logs until the cluster is down, by Ctrl-C or by the verb."""
    tail = Tail(launched.run_dir)
    prefix = prefixer([row["name"] for row in call(launched.run_dir, "ps")["nodes"]])

    def show(*, last: bool = False) -> None:
        for node, line in tail.read(last=last):
            print(prefix(node) + line)
        sys.stdout.flush()

    def has_more(request: Call) -> bool:
        """Show what the nodes print, and say whether the supervisor has something to tell."""
        readable, _, _ = select.select([request.connection], [], [], POLL_S)
        show()
        return bool(readable)

    try:
        while not starting.done:
            if has_more(starting):
                for message in starting.feed(starting.connection.recv(65536)):
                    say(message["progress"])
    except VerbError:
        launched.run_dir.wait_until_free()
        show(last=True)
        raise
    with contextlib.closing(begin(launched.run_dir, "events")) as events:  # ends when the supervisor does
        while not has_more(events) or events.connection.recv(65536):
            pass
    show(last=True)
    if launched.already_running:
        return OK
    _, status = os.waitpid(launched.pid, 0)
    return OK if os.waitstatus_to_exitcode(status) == 0 else FAILED
