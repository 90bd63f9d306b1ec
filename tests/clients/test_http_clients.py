"""curl, wrk, httpx and the standard library's client through a balancer daemon, with the standard library's HTTP server
behind it: nobody but the balancer is ours."""

import concurrent.futures
import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    log_message = lambda self, *args: None
    def reply(self, body, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Upstream", sys.argv[1])
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        head = b"".join(self._headers_buffer) + b"\\r\\n"   # one write: a kill never cuts a short answer
        self._headers_buffer = []
        self.wfile.write(head if self.command == "HEAD" else head + body)
    def do_GET(self):
        if self.path.startswith("/bytes/"):
            self.reply(b"x" * int(self.path[7:]))
        elif self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for n in range(5):
                self.wfile.write(b"7\\r\\nline %d\\n\\r\\n" % n)
                self.wfile.flush()
            self.wfile.write(b"0\\r\\n\\r\\n")
        elif self.path == "/redirect":
            self.reply(b"", 302, Location="/")
        else:
            self.reply(self.headers["Host"].encode(), Set_Cookie="a=b")
    do_HEAD = do_GET
    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(body)
    do_PUT = do_POST

class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

server = Server(("127.0.0.1", int(sys.argv[2])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Program:
    """A process that says on its first line where it is."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()

    def end(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def server(name: str, port: int = 0) -> Program:
    return Program("-c", SERVER, name, str(port))


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[Program]]:
    programs = [server("one"), server("two")]
    yield programs
    for program in programs:
        program.end()


@contextlib.contextmanager
def balancer(*ports: str, **options: str) -> Iterator[Any]:
    """A balancer's ready line; it ends in order."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    names = ",".join(f"127.0.0.1:{port.strip()}" for port in ports)
    program = Program("-m", "minidist", "balancer", "--listen", "127.0.0.1:0", "--upstream", names, *flags)
    try:
        yield json.loads(program.line)
    except BaseException:
        program.end()
        raise
    assert program.end(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def url(upstreams: list[Program]) -> Iterator[str]:
    with balancer(*(each.line for each in upstreams)) as ready:
        yield "http://" + ready["address"]


# --- curl -------------------------------------------------------------------------------------------------------------


def curl(*arguments: str, stdin: bytes | None = None) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "-sS", "--max-time", "20", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout.decode()


def test_curl_gets_and_follows(url: str) -> None:
    assert curl(url) == url.removeprefix("http://")
    assert curl("-L", f"{url}/redirect") == url.removeprefix("http://")
    assert curl("-o", "/dev/null", "-w", "%{http_code} %{size_download}", f"{url}/bytes/5000000") == "200 5000000"
    assert "HTTP/1.1 200 OK" in curl("-I", f"{url}/bytes/77")
    assert "Content-Length: 77" in curl("-I", f"{url}/bytes/77")
    assert curl("-N", f"{url}/stream") == "".join(f"line {n}\n" for n in range(5))
    assert curl("--http1.0", url) == url.removeprefix("http://")


def test_curl_keeps_its_connection(url: str) -> None:
    assert (
        curl("-o", "/dev/null", "-w", "%{num_connects} ", url, "-o", "/dev/null", url, "-o", "/dev/null", url)
        == "1 0 0 "
    )


def test_curl_uploads(url: str) -> None:
    body = bytes(range(256)) * 20_000  # curl sends Expect: 100-continue with a body of this size
    assert (
        curl("--data-binary", "@-", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", url, stdin=body)
        == "200 5120000"
    )
    assert curl("-T", "-", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", url, stdin=body) == "200 5120000"
    assert curl("-H", "Expect: 100-continue", "-d", "hello", url) == "hello"


def test_curl_is_refused_what_is_not_http(url: str) -> None:
    assert curl("-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: a b", url) == "400"
    assert curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "TRACE", url) == "405"
    assert curl("-o", "/dev/null", "-w", "%{http_code}", "-H", f"X: {'a' * 40_000}", url) == "431"


# --- httpx and the standard library -----------------------------------------------------------------------------------


def test_httpx_streams_both_ways(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        assert {client.get("/").headers["x-upstream"] for _ in range(4)} == {"one", "two"}
        assert client.cookies["a"] == "b"
        body = (b"%d\n" % n for n in range(10_000))
        assert client.post("/", content=body).content == b"".join(b"%d\n" % n for n in range(10_000))
        with client.stream("GET", "/stream") as answer:
            assert list(answer.iter_lines()) == [f"line {n}" for n in range(5)]
        with client.stream("GET", "/bytes/20000000") as answer:
            assert sum(map(len, answer.iter_bytes())) == 20_000_000


async def test_httpx_asynchronous(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        for _ in range(20):
            assert (await client.get("/")).status_code == 200


def test_the_standard_library(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    for n in (0, 1, 100_000):
        connection.request("PUT", "/", body=b"x" * n)
        assert connection.getresponse().read() == b"x" * n
    connection.close()


# --- Load -------------------------------------------------------------------------------------------------------------


def test_wrk_sees_no_error(url: str) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    said = subprocess.run(["wrk", "-t1", "-c16", "-d1", url], capture_output=True, check=True, text=True).stdout
    assert "requests in" in said
    assert "Non-2xx" not in said
    assert "Socket errors" not in said


def visit(address: str, method: str, stopping: threading.Event) -> dict[int, int]:
    """Request after request on one connection; how often each status came."""
    statuses: dict[int, int] = {}
    connection = http.client.HTTPConnection(address)
    while not stopping.is_set():
        connection.request(method, "/bytes/10", body=b"again" if method == "PUT" else None)
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    connection.close()
    return statuses


def wait_for_state(admin: str, index: int, *states: str) -> None:
    deadline_s = time.monotonic() + 10
    while True:
        with urllib.request.urlopen(f"http://{admin}/upstreams") as answer:
            if json.load(answer)["upstreams"][index]["state"] in states:
                return
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_server_killed_and_restarted_under_load_fails_no_idempotent_request(upstreams: list[Program]) -> None:
    """Three servers, one of them killed with -9 twice: every GET and every PUT is answered 200."""
    victim = server("three")
    stopping = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: victim.end())
        ready = stack.enter_context(balancer(*(each.line for each in upstreams), victim.line, check_interval="50ms"))
        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(8))
        stack.callback(stopping.set)
        visits = [threads.submit(visit, ready["address"], method, stopping) for method in ("GET", "PUT") * 4]
        for _ in range(2):
            wait_for_state(ready["admin"], 2, "up")
            port = int(victim.line)
            victim.end()
            wait_for_state(ready["admin"], 2, "down", "ejected")
            victim = server("three", port)
        wait_for_state(ready["admin"], 2, "up")
        stopping.set()
        statuses = [each.result() for each in visits]
    assert {status for each in statuses for status in each} == {200}, statuses
    assert sum(sum(each.values()) for each in statuses) > 100


def test_two_workers_are_one_balancer(upstreams: list[Program]) -> None:
    with balancer(*(each.line for each in upstreams), workers="2") as ready:
        for _ in range(40):
            with urllib.request.urlopen(f"http://{ready['address']}/") as answer:
                assert answer.status == 200
        with urllib.request.urlopen(f"http://{ready['admin']}/status") as answer:
            status = json.load(answer)
    assert status["figures"]["requests_total"] == 40
    assert len(status["workers"]) == 2
    assert [each["state"] for each in status["upstreams"]] == ["up", "up"]
