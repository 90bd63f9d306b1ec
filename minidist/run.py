"""Run a coroutine function as a program: `python -m minidist.run package.module:main`.

The function is `async def main(env: Mapping[str, str]) -> None`: it serves on `env["PORT"]` and returns when it is
cancelled. The same function runs here as a process, in a test's process, and in the simulation; here it gets the
process's environment and the fastest event loop there is. SIGTERM and SIGINT cancel it, and the exit code is 0 when it
then ends; a second one ends the process at once. An exception is a traceback and exit code 1.
"""

import asyncio
import importlib
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping

from minidist.runtime.loop import run

OK, FAILED, USAGE = 0, 1, 2

Entry = Callable[[Mapping[str, str]], Awaitable[None]]


class EntryError(Exception):
    """A name that is no entry: what was given, what is allowed."""


def find(name: str) -> Entry:
    """The function that `package.module:function` names. Raises EntryError; what the import itself raises passes."""
    module_name, colon, function = name.partition(":")
    if not (module_name and colon and function):
        raise EntryError(f"given {name!r}, allowed: package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        raise EntryError(f"given {name!r}, allowed: a module that can be imported from {os.getcwd()}") from error
    entry = getattr(module, function, None)
    if not inspect.iscoroutinefunction(entry):
        raise EntryError(f"given {name!r}, allowed: a coroutine function of {module_name} (async def)")
    return entry


async def serve(entry: Entry, env: Mapping[str, str]) -> None:
    """Run an entry until it returns or a stop signal has cancelled it."""
    task = asyncio.ensure_future(entry(env))
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            os._exit(OK)
        stopping = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping:
            raise


def main(argv: list[str]) -> int:
    """The program; the result is the exit code."""
    if len(argv) != 1:
        print(f"minidist.run: given {len(argv)} arguments, allowed: one, package.module:function", file=sys.stderr)  # noqa: T201
        return USAGE
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        run(serve(find(argv[0]), os.environ))
    except EntryError as error:
        print(f"minidist.run: {error}", file=sys.stderr)  # noqa: T201
        return USAGE
    except Exception:
        traceback.print_exc()
        return FAILED
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
