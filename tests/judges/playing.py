"""Running one suite against one server: a node of ours, or a real redis-server for what failed on it.

Suites look for their server at ports they have fixed (6379, 6390), so each run gets a network namespace of its own
where the system allows that (Linux: `unshare`): it disturbs no server of the machine, and none disturbs it. Elsewhere
the port has to be free.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from suites import Run, Suite

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LONGEST_RUN_S = 3600
LONGEST_PROGRAM_S = 60  # of a suite that has no time limit for a case of its own
READY_S = 20
NAMESPACE = ["unshare", "--net", "--map-root-user"]
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


@dataclass
class Case:
    """One case of a suite, and how it ended: passed, failed or skipped."""

    case: str
    outcome: str
    why: str = ""
    spoke: bool = True  # to the server at all


@dataclass
class Played:
    """How a run of a suite ended. `as_real` are cases that failed, and fail against the real server as well."""

    suite: str
    run: str
    cases: list[Case] = field(default_factory=list)
    as_real: list[str] = field(default_factory=list)
    real: str = ""  # the real server that failed cases were tried on, if there was one
    took_s: float = 0


def isolated() -> bool:
    """Whether runs can have a network of their own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def loopback_up() -> None:
    """A new namespace has a loopback interface that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


# --- servers --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def node(suite: Suite, folder: Path) -> Iterator[None]:
    """A node of this checkout, as anybody would start it, at the port where the suite looks."""
    listen = ["--listen", "127.0.0.1:0", "--memcached"] if suite.memcached else ["--listen"]
    command = [sys.executable, "-m", "minidist", "cache", *listen, f"127.0.0.1:{suite.port}", *suite.node]
    with serving(command, suite.port, folder / "node.log", {"PYTHONPATH": str(ROOT)}):
        yield


@contextlib.contextmanager
def real_server(suite: Suite, folder: Path) -> Iterator[None]:
    command = ["redis-server", "--port", str(suite.port), "--save", "", "--enable-debug-command", "yes"]
    with serving(command, suite.port, folder / "redis.log", {}):
        yield


@contextlib.contextmanager
def serving(command: list[str], port: int, log: Path, extra: dict[str, str]) -> Iterator[None]:
    """A server while the block runs. Raises RuntimeError when it does not come up, or the port is taken."""
    if answers(port):
        raise RuntimeError(f"port {port} of localhost is taken, and the suite needs it")
    with log.open("w") as out, tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=home, env=os.environ | extra)
        try:
            until = time.monotonic() + READY_S
            while not answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(command)} did not start: {log.read_text()[-500:]}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(READY_S)


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


# --- suites ---------------------------------------------------------------------------------------------------------


def play(suite: Suite, run: Run, source: Path, python: Path, folder: Path) -> Played:
    """Run a suite against our node; what fails, against a real server, too, where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    played = Played(suite.name, run.name)
    began_s = time.monotonic()
    with node(suite, folder):
        played.cases = run_cases(suite, run, source, python, folder, ())
    played.took_s = round(time.monotonic() - began_s, 1)
    failed = [each.case for each in played.cases if each.outcome == "failed" and each.spoke]
    if failed and not suite.memcached and shutil.which("redis-server"):
        version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
        played.real = "redis-server " + (re.findall(r"v=(\S+)", version) or ["?"])[0]
        with real_server(suite, folder):
            again = run_cases(suite, run, source, python, folder, tuple(failed))
        played.as_real = sorted({each.case for each in again if each.outcome == "failed"} & set(failed))
    return played


def run_cases(suite: Suite, run: Run, source: Path, python: Path, folder: Path, only: tuple[str, ...]) -> list[Case]:
    cases = run_own_program if suite.own_program else run_pytest
    return cases(suite, run, source, python, folder, only)


def run_pytest(suite: Suite, run: Run, source: Path, python: Path, folder: Path, only: tuple[str, ...]) -> list[Case]:
    """Only the cases in `only`, if there are any."""
    results = folder / "cases.jsonl"
    results.write_text("")
    extra = {
        "PYTHONPATH": str(HERE),
        "REFEREE_EXCLUSIONS": json.dumps(suite.exclusions),
        "REFEREE_RESULTS": str(results),
        "REFEREE_PORTS": str(suite.port),
        "REFEREE_ONLY": json.dumps(only),
        "CI": "1",  # Hypothesis then has no deadlines, which would measure this machine
    }
    command = [str(python), "-m", "pytest", "-p", "referee", "-p", "no:cacheprovider", "-q", "--tb=short"]
    with (folder / f"pytest{'-real' if only else ''}.log").open("w") as out:
        done = subprocess.run(
            [*command, "--continue-on-collection-errors", *run.arguments], cwd=source, env=os.environ | extra,
            stdout=out, stderr=out, timeout=LONGEST_RUN_S, check=False,
        )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{suite.name} {run.name}: pytest did not come to its end, see {out.name}")
    return [Case(**json.loads(line)) for line in results.read_text().splitlines()]


def run_own_program(
    suite: Suite, run: Run, source: Path, python: Path, folder: Path, only: tuple[str, ...]
) -> list[Case]:
    """resp_compatibility.py prints `test: NAME passed`, and at the end why others did not."""
    command = [str(python), "-u", "resp_compatibility.py", "--port", str(suite.port), *run.arguments]
    log = folder / f"output{'-real' if only else ''}.log"
    with log.open("w") as out:
        subprocess.run(command, cwd=source, stdout=out, stderr=out, timeout=LONGEST_PROGRAM_S, check=False)
    return read_output(log.read_text(), only)


SKIPPED = {
    "skipped": "the suite leaves it out",
    "tags skipped": "CLUSTER: the same case in the form for clusters",
    "version skipped": "a later version's",
}


def read_output(text: str, only: tuple[str, ...]) -> list[Case]:
    why = dict(re.findall(r"^FailedTest\(name='(.*?)', reason=(.*)\)$", text, re.MULTILINE))
    cases = []
    for name, ended in re.findall(r"^test: (.*?) (passed|failed|tags skipped|version skipped|skipped)$", text, re.M):
        if only and name not in only:
            continue
        if ended in SKIPPED:
            cases.append(Case(name, "skipped", SKIPPED[ended]))
        else:
            cases.append(Case(name, ended, why.get(name, "")[:300]))
    return cases


# --- in a namespace -------------------------------------------------------------------------------------------------


def play_apart(suite: Suite, run: Run, source: Path, python: Path, folder: Path, apart: bool) -> Played:
    """`play` in a process of its own, with a network of its own if `apart`."""
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "played.json"
    result.unlink(missing_ok=True)
    words = [suite.name, run.name, str(source), str(python), str(folder), str(int(apart))]
    prefix = NAMESPACE if apart else []
    subprocess.run([*prefix, sys.executable, str(Path(__file__)), *words], check=True)
    fields = json.loads(result.read_text())
    fields["cases"] = [Case(**each) for each in fields["cases"]]
    return Played(**fields)


def main() -> None:
    from suites import SUITES

    name, run_name, source, python, folder, apart = sys.argv[1:]
    if apart == "1":
        loopback_up()
    suite = SUITES[name]
    run = next(each for each in suite.runs if each.name == run_name)
    played = play(suite, run, Path(source), Path(python), Path(folder))
    (Path(folder) / "played.json").write_text(json.dumps(asdict(played)))


if __name__ == "__main__":
    main()
