"""What CONFIG GET and CONFIG SET read and change, as the engine sees it: names and texts."""

from typing import Protocol


class Settings(Protocol):
    """Settings under Redis' names."""

    def values(self) -> dict[str, str]:
        """Every setting's value as CONFIG GET shows it."""
        ...

    def change(self, values: dict[str, str]) -> None:
        """CONFIG SET: all of them or none. Raises CommandError with Redis' words."""
        ...


class _NoSettings:
    def values(self) -> dict[str, str]:
        return {}

    def change(self, values: dict[str, str]) -> None:
        from minidist.engines.keyspace.errors import CommandError

        raise CommandError(f"ERR Unknown option or number of arguments for CONFIG SET - '{next(iter(values))}'")


NO_SETTINGS: Settings = _NoSettings()
