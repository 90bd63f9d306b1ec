"""A user's program, as users write them: a web server on plain asyncio that keeps its data in a cache (redis-py).

It knows nothing of minidist: it serves on $PORT and finds the cache at $CACHE_URL. `GET /product/N` is answered from
the cache, or from a slow "database" that fills the cache for a minute (cache-aside). `GET /healthz` says: alive.
Started as a process by `python -m minidist.cluster.demo.web`, or as the coroutine `main(env)` inside another loop.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

DATABASE_DELAY_S = 0.02
KEEP_S = 60

# What `minidist sim` asks of this program, and (`simulated_check`, below) what it takes for a right answer.
SIMULATED_PATHS = ("/product/{key}",)


def price(number: str) -> int:
    return 5 + int(number) % 95


class Shop:
    """Looks products up: in the cache first, then in the database."""

    def __init__(self, cache_url: str) -> None:
        self.cache = Redis.from_url(cache_url, socket_timeout=1.0, socket_connect_timeout=1.0)

    async def product(self, number: str) -> tuple[bytes, str]:
        """The product as JSON, and where it came from: hit, miss, or off (the cache does not answer)."""
        key = f"product:{number}"
        try:
            found: Any = await self.cache.get(key)
            if found is not None:
                return found, "hit"
        except (RedisError, OSError):
            return await self.from_database(number), "off"
        product = await self.from_database(number)
        try:
            await self.cache.set(key, product, ex=KEEP_S)
        except (RedisError, OSError):
            return product, "off"
        return product, "miss"

    async def from_database(self, number: str) -> bytes:
        await asyncio.sleep(DATABASE_DELAY_S)
        return json.dumps({"product": number, "price": price(number)}).encode()


class Web:
    """The HTTP/1.1 side: one handler per connection, which is kept until the client closes it."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.handlers: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.handlers.add(task)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ", 2)[1].decode("latin-1")
                writer.write(await self.answer(target))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # the client has gone, or we stop
        finally:
            self.handlers.discard(task)
            writer.close()

    async def answer(self, target: str) -> bytes:
        if target == "/healthz":
            return response("200 OK", b"ok", "none")
        kind, _, number = target.strip("/").partition("/")
        if kind != "product" or not number.isdecimal():
            return response("404 Not Found", b"try /product/1", "none")
        return response("200 OK", *await self.shop.product(number))


def response(status: str, body: bytes, cache: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nX-Cache: {cache}\r\n\r\n"
    return head.encode() + body


def simulated_check(path: str, status: int, body: bytes) -> str:
    """What is wrong with an answer; empty when nothing is. However much is broken, nobody gets another product."""
    number = path.rpartition("/")[2]
    wanted = {"product": number, "price": price(number)}
    return "" if status == 200 and json.loads(body) == wanted else f"wanted {wanted}"


async def main(env: Mapping[str, str]) -> None:
    """Serve on `env["PORT"]` until cancelled."""
    shop = Shop(env["CACHE_URL"])
    web = Web(shop)
    server = await asyncio.start_server(web.connected, "127.0.0.1", int(env["PORT"]))
    try:
        await server.serve_forever()
    finally:
        server.close()
        for handler in list(web.handlers):
            handler.cancel()
        await shop.cache.aclose()


if __name__ == "__main__":
    asyncio.run(main(os.environ))
