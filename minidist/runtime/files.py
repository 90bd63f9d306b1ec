"""Small files named by options, read at start: secrets and lists. Data goes through `Disk`."""

import os


def read_text(path: str) -> str:
    """The text of a file. Raises OSError when it cannot be read."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def replace_bytes(path: str, data: bytes) -> None:
    """Put new content into a file: after a crash it is the old or the new one. Raises OSError.

    Who may read it stays as it is.
    """
    beside = f"{path}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, os.stat(path).st_mode & 0o777)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
