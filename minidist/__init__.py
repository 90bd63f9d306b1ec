"""minidist: the building blocks of a distributed system, each a small asyncio server that speaks its real protocol."""

__version__ = "0.1.0"
