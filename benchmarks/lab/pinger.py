"""A client that does nothing but PING, twice in a millisecond, and tells how long it waited at worst.

    python lab/pinger.py HOST PORT          # until the end of its standard input; then one line of JSON

A server that does something else for 5 ms leaves a PING without an answer for at least 4.5 ms of them. What the machine
does to the pinger counts as well, so read its figure beside that of an idle server.
"""

import gc
import json
import select
import socket
import sys
import time

INTERVAL_S = 0.0005
PING = b"*1\r\n$4\r\nPING\r\n"


def main() -> None:
    client = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    gc.disable()
    ping(client)  # the first is served by code that has never run
    print("ready", flush=True)
    waits_s: list[float] = []
    while not select.select([sys.stdin], [], [], 0)[0]:
        waits_s.append(ping(client))
        time.sleep(INTERVAL_S)
    waits_s.sort()
    print(json.dumps({"pings": len(waits_s), "worst_ms": [round(each * 1000, 3) for each in waits_s[:-6:-1]]}))


def ping(client: socket.socket) -> float:
    sent_s = time.perf_counter()
    client.sendall(PING)
    if not client.recv(64):
        raise SystemExit("the server closed the connection")
    return time.perf_counter() - sent_s


if __name__ == "__main__":
    main()
