"""What the embedding API raises."""


class MinidistError(Exception):
    """Something that could not be started or done; the text says what, and has a failed node's last lines."""


class UsageError(MinidistError, ValueError):
    """A wrong option or topology: which key, what was given, what is allowed."""


class NotSupported(MinidistError):
    """What this carrier (a process, or the test's own loop) cannot do; the text names both."""
