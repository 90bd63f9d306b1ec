"""The embedding API: real nodes inside tests, with pytest (plugin.py) or without it.

    import minidist.testing

    with minidist.testing.cache(max_memory="16mb") as cache:
        redis.Redis.from_url(cache.url).ping()

`cache`, `balancer`, `program`, `up` are the methods of one factory per process (factory.py), made at the first call and
closed at exit. This module imports nothing, because the plugin below it loads in every pytest run.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidist.testing.factory import Minidist

_shared: "Minidist | None" = None

LAZY = {
    "MinidistError": "minidist.testing.errors",
    "UsageError": "minidist.testing.errors",
    "NotSupported": "minidist.testing.errors",
    "Minidist": "minidist.testing.factory",
}


def shared() -> "Minidist":
    """The factory of this process."""
    global _shared
    if _shared is None:
        import atexit

        from minidist.runtime.randomness import fresh_seed
        from minidist.testing.carrier import Workshop
        from minidist.testing.factory import Minidist

        workshop = Workshop()
        _shared = Minidist(workshop, seed=fresh_seed())
        atexit.register(workshop.close)
        atexit.register(_shared.close)
    return _shared


def __getattr__(name: str) -> Any:
    if name in LAZY:
        import importlib

        return getattr(importlib.import_module(LAZY[name]), name)
    if name in ("cache", "balancer", "program", "up"):
        return getattr(shared(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
