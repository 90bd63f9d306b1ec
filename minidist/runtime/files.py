"""Small files named by options, read at start: secrets and lists. Data goes through `Disk`."""


def read_text(path: str) -> str:
    """The text of a file. Raises OSError when it cannot be read."""
    with open(path, encoding="utf-8") as file:
        return file.read()
