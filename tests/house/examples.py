"""Reads the examples out of a Markdown file and runs them as a reader would: in an empty directory, with bin/ in PATH.

Every fenced block marked `console` or `python` is an example and runs, in order, all of one file in the same directory:

- `console`: lines after `$ ` are given to one shell (a line after `> ` continues the command), and must succeed. The
  lines below are the output expected, on stdout and stderr together: a line `...` stands for any lines, `...` within a
  line for any text. A command without lines below may print what it likes. What is started with `&` is killed at the
  end, and clusters that are still up are taken down.
- `python`: runs as a program; one that defines test functions runs under pytest, pytest-asyncio in auto mode.

An HTML comment on the line before a block changes that:

- `<!-- file: NAME -->` above a block of any language writes it to NAME instead, for the examples below it;
- `<!-- not run: REASON -->` leaves it alone;
- `<!-- ports: 6379 8080 -->`, anywhere: free ports take the place of these, in all that runs or is expected.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^ *(?P=ticks) *$", re.M | re.S
)
COMMENT = re.compile(r"<!-- *(?P<word>file|not run|ports|test)\b:? *(?P<rest>.*?) *-->")
RUN = ("console", "python")
COMMAND_LIMIT_S = 45
PYTEST_INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
PROMPT = "minidist-example-done"


class ExampleFailed(AssertionError):
    """An example does not do what the text says."""


@dataclass(frozen=True)
class Block:
    """One fenced block: the line it starts at, and what the comment above it says."""

    line: int
    language: str
    text: str
    word: str = ""
    rest: str = ""


@dataclass(frozen=True)
class Command:
    """What is typed at a prompt, and the output lines below it."""

    text: str
    expected: tuple[str, ...]


def blocks(markdown: str) -> list[Block]:
    """The blocks that matter for running: examples, and files that they need."""
    found = []
    for match in FENCE.finditer(markdown):
        before = markdown[: match.start()].rstrip().rsplit("\n", 1)[-1]
        comment = COMMENT.search(before)
        word, rest = (comment["word"], comment["rest"]) if comment else ("", "")
        if word == "file" or (match["language"] in RUN and word != "not run"):
            line = markdown.count("\n", 0, match.start()) + 1
            found.append(Block(line, match["language"], textwrap.dedent(match["text"]), word, rest))
    return found


def commands(text: str) -> list[Command]:
    """The commands of a console block with their expected output."""
    found: list[tuple[list[str], list[str]]] = []
    for line in text.rstrip().split("\n"):
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0].append(line[2:])
        elif found:
            found[-1][1].append(line)
        else:
            raise ExampleFailed(f"a console block starts with a command after '$ ', not with {line!r}")
    return [Command("\n".join(typed), tuple(expected)) for typed, expected in found]


def matches(expected: tuple[str, ...], output: str) -> bool:
    """Whether the output is what the text shows, `...` standing for anything."""
    parts = [r"(?:.*\n)*?" if line.strip() == "..." else f"{wildcard(line)}\n" for line in expected]
    return not expected or re.fullmatch("".join(parts) + r"\s*", output.rstrip() + "\n") is not None


def wildcard(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.rstrip().split("..."))


class Shell:
    """One shell for all console blocks of a file, so that directories, variables and background jobs carry on."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["sh"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Exit code and output. A command that does not end is stopped, and the shell with it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n{PROMPT} %s\\n' $?\n")
        self.process.stdin.flush()
        output = []
        alarm = threading.Timer(COMMAND_LIMIT_S, self.kill)
        alarm.start()
        try:
            for line in self.process.stdout:
                if line.startswith(PROMPT):
                    return int(line.split()[1]), "".join(output).removesuffix("\n")
                output.append(line)
        finally:
            alarm.cancel()
        return 1, "".join(output) + f"(the shell ended, or was stopped after {COMMAND_LIMIT_S} s)"

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the shell and what it left in the background."""
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def run_examples(markdown: str, folder: Path, binaries: Path) -> int:
    """Run all examples of a text in a folder; the number of blocks that ran. ExampleFailed: which line, and how."""
    markdown = with_free_ports(markdown)
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "COLUMNS": "120",
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("PYTEST_ADDOPTS", None)
    (folder / "pytest.ini").write_text(PYTEST_INI)
    shell = Shell(folder, environment)
    ran = 0
    try:
        for block in blocks(markdown):
            if block.word == "file":
                (folder / block.rest).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.rest).write_text(block.text)
                continue
            ran += 1
            for command in typed(block, folder):
                code, output = shell.run(command.text)
                if code or not matches(command.expected, output):
                    raise ExampleFailed(explain(block, command, code, output))
    finally:
        shell.close()
        take_down_clusters(folder, binaries, environment)
    return ran


def explain(block: Block, command: Command, code: int, output: str) -> str:
    shown = "\n".join(command.expected)
    return f"line {block.line}: $ {command.text}\nexit code {code}, printed:\n{output}\nthe text shows:\n{shown}"


def take_down_clusters(folder: Path, binaries: Path, environment: dict[str, str]) -> None:
    for run in sorted((folder / ".minidist").glob("*")):
        subprocess.run(
            [binaries / "minidist", "down", "--run-dir", run],
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=30,
        )


def typed(block: Block, folder: Path) -> list[Command]:
    """The commands that run a block."""
    if block.language == "console":
        return commands(block.text)
    tests = re.search(r"^(async )?def test_", block.text, re.M)
    name = f"{'test_' if tests else ''}example_{block.line}.py"
    (folder / name).write_text(block.text)
    return [Command(f"python -m pytest -q -p no:cacheprovider {name}" if tests else f"python {name}", ())]


def with_free_ports(markdown: str) -> str:
    """Replace the ports that the text names as its own by free ones, so that an example runs beside anything."""
    named = [port for match in COMMENT.finditer(markdown) if match["word"] == "ports" for port in match["rest"].split()]
    with contextlib.ExitStack() as stack:
        for port in dict.fromkeys(named):
            reserved = stack.enter_context(socket.socket())
            reserved.bind(("127.0.0.1", 0))
            markdown = re.sub(rf"\b{port}\b", str(reserved.getsockname()[1]), markdown)
    return markdown
