"""nginx three times over: the balancer to compare with, the fast upstream behind both, the server of downloads.

wrk and curl are the neutral clients of everything that speaks HTTP.
"""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lab.servers import Running, free_port, need, output_of, peer, pinned

PACKAGE = "nginx-light"
ANSWER = "x" * 64
DOWNLOAD_TIMEOUT_S = 120

# Everything nginx writes stays in its folder. Connections are never closed for having served many requests.
COMMON = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; {user}
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {http}
}}
"""
UPSTREAM = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /download/ {{ alias {folder}/download/; }}
        location / {{ return 200 "{answer}"; }}
    }}
"""
# The forwarded headers are those that our balancer adds as well; a body is streamed, never spooled to a file.
BALANCER = """
    upstream app {{ server {upstream}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
            proxy_max_temp_file_size 0;
        }}
    }}
"""


def version() -> str:
    found = re.search(r"nginx/(\S+)", output_of(need("nginx", PACKAGE), "-v"))
    return found[1] if found else "?"


@contextlib.contextmanager
def _nginx(name: str, http: str, port: int, core: int, folder: Path) -> Iterator[Running]:
    home = folder / name
    home.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""  # the workers must be able to read the folder
    config = home / "nginx.conf"
    config.write_text(COMMON.format(folder=home, user=user, http=http))
    command = [need("nginx", PACKAGE), "-p", str(home), "-c", str(config), "-e", str(home / "error.log")]
    with peer(name, version(), command, port, core, home) as server:
        yield server


@contextlib.contextmanager
def upstream(core: int, folder: Path, download_bytes: int = 0) -> Iterator[Running]:
    """Answers 64 bytes to everything, and /download/file with as many bytes as asked for."""
    port = free_port()
    files = folder / "upstream-files" / "download"
    files.mkdir(parents=True)
    with (files / "file").open("wb") as file:
        file.truncate(download_bytes)  # sparse: reads as zeros out of the page cache
    http = UPSTREAM.format(port=port, folder=files.parent, answer=ANSWER)
    with _nginx("nginx-upstream", http, port, core, folder) as server:
        yield server


@contextlib.contextmanager
def balancer(core: int, folder: Path, upstream: Running) -> Iterator[Running]:
    """One worker that keeps its connections to the upstream."""
    port = free_port()
    http = BALANCER.format(port=port, upstream=f"{upstream.host}:{upstream.port}")
    with _nginx("nginx", http, port, core, folder) as server:
        yield server


def wrk(server: Running, seconds: float, *, core: int, connections: int = 50) -> tuple[int, float]:
    """Load one URL with keep-alive connections; (answers, seconds). RuntimeError when any was not 200 with its body."""
    whole = max(1, round(seconds))
    command = [need("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{whole}s", f"http://{server.host}:{server.port}/"]
    printed = output_of(*pinned(core, command))
    done = re.search(r"(\d+) requests in ([\d.]+)s", printed)
    if not done or "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError(f"wrk against {server.name}: {printed[-300:]}")
    return int(done[1]), float(done[2])


def download(server: Running, expected_bytes: int, *, core: int) -> float:
    """Seconds that curl needs for /download/file; RuntimeError when it is not whole."""
    command = [need("curl", "curl"), "-s", "-f", "-o", os.devnull, "-w", "%{size_download}"]
    command.append(f"http://{server.host}:{server.port}/download/file")
    begin = time.monotonic()
    done = subprocess.run(pinned(core, command), capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S)
    seconds = time.monotonic() - begin
    if done.returncode or int(done.stdout) != expected_bytes:
        raise RuntimeError(f"curl from {server.name}: exit {done.returncode}, {done.stdout} of {expected_bytes} bytes")
    return seconds
