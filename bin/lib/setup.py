"""Make or remake the checkout's .venv: `python setup.py ROOT base|test`, called by setup.sh when it may be needed.

The environment is rebuilt from nothing whenever pyproject.toml, the place of the checkout or the chosen Python changed:
an environment that has been patched for months is not the one a newcomer gets. Only installing the test tools into a
current environment adds to it. `.venv/made-for/` says what it was made for; its files are written last, so a set-up
that was killed half-way leaves nothing that looks complete. A lock beside .venv keeps two runs apart: the second
waits, looks again, and usually finds nothing left to do.

Only the standard library of Python 3.11 is at hand here. Installers, in this order: uv where it exists; venv with the
pip of ensurepip; where the distribution leaves ensurepip out (Debian without python3-venv), pip's wheel from the
package index, which runs from inside the zip file.

stdout belongs to the program that is started afterwards: everything here goes to stderr, and the installers' own words
to .venv/setup.log. A failure is one line that says what to do.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse
import urllib.request
from configparser import ConfigParser, Error
from pathlib import Path

DOWNLOAD_TIMEOUT_S = 60
EXTRAS = "demo,lua"  # what the program of `minidist demo` imports, and EVAL
PIP_INSTALL = ("install", "--disable-pip-version-check", "--no-input", "--no-warn-script-location")
DEFAULT_INDEX = "https://pypi.org/simple"


class SetUpError(Exception):
    """What went wrong and what the user can do about it, in one line."""


def say(text: str) -> None:
    sys.stderr.write(f"minidist: {text}\n")


class Environment:
    """The .venv of one checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / ".venv"
        self.python = self.path / "bin" / "python"
        self.made_for = self.path / "made-for"
        self.log = self.path / "setup.log"

    def is_current(self, what: str) -> bool:
        """Whether it was completed, for this path, this pyproject.toml and (if one was asked for) this Python."""
        try:
            stamp = (self.made_for / what).read_bytes()
            path = (self.made_for / "path").read_text().rstrip("\n")
            version = (self.made_for / "python").read_text().strip()
        except OSError:
            return False
        wanted = (self.root / "pyproject.toml").read_bytes()
        same_python = not os.environ.get("PYTHON") or version == python_version()
        return stamp == wanted and path == str(self.root) and same_python and os.access(self.python, os.X_OK)

    def stamp(self, what: str, pyproject: bytes) -> None:
        self.made_for.mkdir(exist_ok=True)
        (self.made_for / "path").write_text(f"{self.root}\n")
        (self.made_for / "python").write_text(f"{python_version()}\n")
        (self.made_for / what).write_bytes(pyproject)

    def run(self, *command: str | Path, **environment: str) -> None:
        """Run an installer's command, its output in the log; SetUpError with its own last complaint."""
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            done = subprocess.run(
                command,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        if done.returncode:
            raise SetUpError(f"{last_complaint(self.log)} (is the package index reachable? all output: {self.log})")


def python_version() -> str:
    """Implementation, version and build of the running interpreter: what binary wheels depend on."""
    return f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"


def last_complaint(log: Path) -> str:
    """The installer's last line that names a cause, which pip wraps in general remarks and uv lists step by step."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    for pattern in (r"ERROR: (?!Failed to build)", r"cause: Failed", r"(error|fatal|\w+Error)\b"):
        found = [line for line in lines if re.match(pattern, line)]
        if found:
            return found[-1]
    return lines[-1] if lines else "the installer failed without a word"


def set_up(root: Path, what: str) -> None:
    environment = Environment(root)
    if environment.is_current(what):
        return
    with open(root / ".venv.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is setting up .venv, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not environment.is_current(what):
            build(environment, what)


def build(environment: Environment, what: str) -> None:
    pyproject = (environment.root / "pyproject.toml").read_bytes()
    fresh = not environment.is_current("base")
    requirements = ["--editable", f".[{EXTRAS}]"] if fresh else []
    if what == "test":
        requirements += tomllib.loads(pyproject.decode())["dependency-groups"]["test"]
    if fresh:
        say(f"setting up .venv with Python {'.'.join(map(str, sys.version_info[:3]))}: once, about half a minute")
        remove(environment.path)
        environment.path.mkdir()
    else:
        say("installing the test tools into .venv: once, about half a minute")
    if not install_with_uv(environment, requirements, fresh):
        install_with_pip(environment, requirements, fresh)
    if fresh:
        # Installed packages come compiled, an editable one does not: the first start is to be as fast as the second.
        environment.run(environment.python, "-m", "compileall", "-q", "minidist")
        environment.stamp("base", pyproject)
    if what == "test":
        environment.stamp("test", pyproject)


def remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def base_python() -> str:
    """The interpreter under its most specific name: when `python3` moves on, .venv/bin/python is seen to be missing."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def install_with_uv(environment: Environment, requirements: list[str], fresh: bool) -> bool:
    """False when uv is absent or did not manage, which leaves the work to pip."""
    uv = shutil.which("uv")
    if uv is None:
        return False
    # What pip does by itself: trust the system's certificates (a company's proxy), and its own setting for the index.
    settings = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    if index := os.environ.get("PIP_INDEX_URL"):
        settings["UV_DEFAULT_INDEX"] = index
    settings.update({name: value for name, value in os.environ.items() if name.startswith("UV_")})
    try:
        if fresh:
            environment.run(uv, "venv", "--quiet", "--allow-existing", "--python", base_python(), environment.path)
        environment.run(
            uv, "pip", "install", "--compile-bytecode", "--python", environment.python, *requirements, **settings
        )
    except SetUpError as error:
        say(f"uv failed, trying pip ({error})")
        return False
    return True


def install_with_pip(environment: Environment, requirements: list[str], fresh: bool) -> None:
    if importlib.util.find_spec("venv") is None:
        raise SetUpError("this Python has no venv module: install it (apt install python3-venv), or uv")
    if fresh:
        environment.run(base_python(), "-m", "venv", "--without-pip", environment.path)
    if lacks_pip(environment):
        try:
            environment.run(environment.python, "-m", "ensurepip", "--default-pip")
        except SetUpError:
            with tempfile.TemporaryDirectory() as folder:
                wheel = download_pip(Path(folder))
                environment.run(environment.python, wheel / "pip", *PIP_INSTALL, wheel)
    environment.run(environment.python, "-m", "pip", *PIP_INSTALL, *requirements)


def lacks_pip(environment: Environment) -> bool:
    check = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pip') is None)"
    return subprocess.run([environment.python, "-c", check]).returncode != 0


# --- pip without ensurepip: the wheel from the package index ---


def download_pip(folder: Path) -> Path:
    """Fetch the newest pip wheel that this Python can run, checked against the index's SHA-256."""
    index = package_index()
    advice = "install python3-venv (apt install python3-venv) or uv"
    try:
        url, sha256 = newest_pip(index)
        body = fetch(url)
    except (OSError, ValueError, LookupError) as error:
        raise SetUpError(f"no ensurepip in this Python, and no pip from {index} ({error}): {advice}") from None
    if sha256 and hashlib.sha256(body).hexdigest() != sha256:
        raise SetUpError(f"pip from {index} does not match its SHA-256: {advice}")
    wheel = folder / urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1])
    wheel.write_bytes(body)
    return wheel


def newest_pip(index: str) -> tuple[str, str]:
    """Address and SHA-256 ("" when the index gives none) of the newest final release this Python can run.

    The page is the simple index of PEP 503: anchors with the hash in the fragment and a data-requires-python attribute.
    """
    page = f"{index.rstrip('/')}/pip/"
    found = []
    for anchor in re.findall(r"<a\s[^>]*>", fetch(page).decode()):
        href = re.search(r'href="([^"#]*/pip-(\d+(?:\.\d+)*)-py3-none-any\.whl)(?:#sha256=(\w+))?"', anchor)
        least = re.search(r'data-requires-python="(?:&gt;|>)=\s*3\.(\d+)', anchor)
        if href and (least is None or int(least[1]) <= sys.version_info[1]):
            found.append((tuple(map(int, href[2].split("."))), urllib.parse.urljoin(page, href[1]), href[3] or ""))
    if not found:
        raise LookupError("no pip wheel listed")
    return max(found)[1:]


def fetch(url: str) -> bytes:
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S, context=context) as response:
        body: bytes = response.read()
    return body


def package_index() -> str:
    """Where pip would look: its environment variable, its configuration files, PyPI."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    home = Path.home()
    named = Path(os.environ.get("PIP_CONFIG_FILE", os.devnull))
    for file in (named, home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")):
        settings = ConfigParser(interpolation=None)
        try:
            settings.read(file)
        except (Error, UnicodeDecodeError):
            continue
        for section in ("install", "global"):
            if url := settings.get(section, "index-url", fallback=""):
                return url
    return DEFAULT_INDEX


def main() -> int:
    root, what = Path(sys.argv[1]), sys.argv[2]
    try:
        set_up(root, what)
    except SetUpError as error:
        say(f"set-up failed: {error}")
    except PermissionError as error:
        say(f"set-up failed: {error.filename} cannot be written: use a checkout of your own, or pip install minidist")
    except OSError as error:
        say(f"set-up failed: {error}")
    except KeyboardInterrupt:
        say("set-up interrupted")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
