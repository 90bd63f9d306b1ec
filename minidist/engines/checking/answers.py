"""What the end of an operation says about its effect: one rule for everybody who records a history.

    answers.after_error("write", "READONLY You can't write against a read only replica.")     # FAIL: no effect
    answers.after_error("write", "ERR upstream timed out")                                    # INFO: nobody knows
    answers.after_silence("write", sent=True)                                                 # INFO

An outcome that claims too much makes a checker wrong, one that claims too little only makes it blunter. So FAIL is for
what certainly had no effect and never will have one: what was never sent; what only looks (`read`); and what a server
refused with an error that says so by its first word (`NO_EFFECT`). All other errors are INFO, `-ERR` among them, which
servers and proxies also use for what went wrong half way.
"""

from minidist.engines.checking.operation import Outcome

#: First words of RESP errors that a server gives before it has begun to carry out a command.
NO_EFFECT = frozenset(
    "ASK BUSY CLUSTERDOWN CROSSSLOT EXECABORT LOADING MASTERDOWN MISCONF MOVED NOAUTH NOPERM NOREPLICAS NOSCRIPT OOM"
    " READONLY TRYAGAIN WRONGPASS WRONGTYPE".split()
)
#: Functions of a history that change nothing.
LOOKS = ("read",)


def after_error(f: str, text: str) -> Outcome:
    """FAIL or INFO: the operation was answered with this RESP error, given without its `-`."""
    return Outcome.FAIL if f in LOOKS or text.partition(" ")[0] in NO_EFFECT else Outcome.INFO


def after_silence(f: str, *, sent: bool) -> Outcome:
    """FAIL or INFO: no answer came. `sent` says whether a byte of the request may have reached the server."""
    return Outcome.INFO if sent and f not in LOOKS else Outcome.FAIL
