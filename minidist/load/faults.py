"""`--faults FILE`: the faults of a file, set in the running cluster while the load lasts.

The cluster's launcher sets each at its `at` and ends it after its `duration`, as `minidist fault add` does; those that
still hold at the end of the load are taken back. For the report each is a window of the run.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

from minidist.cluster.control import VerbError, call
from minidist.cluster.verbs.common import USAGE, chosen
from minidist.load.plan import LoadError
from minidist.runtime.config import ConfigError
from minidist.runtime.units import parse_duration


@dataclass(frozen=True, slots=True)
class Window:
    """A fault in the time of the run, in seconds since its start; `to_s` is None when it lasted to the end."""

    text: str
    from_s: float
    to_s: float | None


class ClusterFaults:
    """The faults of one run. `begin`, make the load, `end`; then `windows`."""

    def __init__(self, path: str, run_dir: str = "") -> None:
        """Raises ConfigError for a file that cannot be taken, LoadError when no cluster runs."""
        self._specs = read_faults(path)
        try:
            self._run_dir = chosen(argparse.Namespace(run_dir=run_dir, name=""))
        except VerbError as error:
            if error.exit_code == USAGE:
                raise ConfigError("--run-dir", run_dir, f"the directory of one cluster: {error}") from error
            raise LoadError(f"--faults needs a running cluster: {error}") from error
        self._ids: list[str] = []
        self._began_at = 0.0

    def begin(self) -> None:
        """From now on `at` counts. Raises ConfigError naming the fault that the cluster refuses; then none is set."""
        self._began_at = time.time()
        for place, spec in enumerate(self._specs):
            try:
                self._ids.append(self._add(spec))
            except VerbError as error:
                self.end()
                raise ConfigError("--faults", spec, f"[{place}]: {error}") from error

    def _add(self, spec: dict[str, Any]) -> str:
        if "sides" in spec:
            side, other = (_names(each) for each in spec["sides"])
            one_way = bool(spec.get("one_way"))
            return str(call(self._run_dir, "partition", side=side, other=other, one_way=one_way))
        parameters = {key: given for key, given in spec.items() if key not in ("id", "kind", "on", "peer")}
        on, peer = _names(spec.get("on")), _names(spec.get("peer"))
        kind = str(spec.get("kind"))
        return str(call(self._run_dir, "fault-add", kind=kind, on=on, peer=peer, parameters=parameters))

    def end(self) -> None:
        """Take back what still holds."""
        try:
            held = [fault["id"] for fault in call(self._run_dir, "fault-ls")]
            for fault_id in self._ids:
                if fault_id in held:
                    call(self._run_dir, "fault-rm", id=fault_id)
        except (VerbError, OSError):
            pass  # the cluster is gone, and its faults with it
        self._ids.clear()

    def windows(self, started_at: float) -> list[Window]:
        """As the report draws them; `started_at` is when the load began, in seconds of the Unix epoch."""
        found = []
        for spec in self._specs:
            from_s = max(0.0, self._began_at - started_at + _seconds(spec.get("at", 0)))
            lasts = spec.get("duration")
            where = ",".join(_names(spec.get("on", [name for side in spec.get("sides", ()) for name in _names(side)])))
            to_s = None if lasts is None else from_s + _seconds(lasts)
            found.append(Window(f"{spec.get('kind')} {where}", from_s, to_s))
        return found


def read_faults(path: str) -> list[dict[str, Any]]:
    """A JSON list of faults. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            specs = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError("--faults", path, f"a JSON list of faults ({error})") from error
    if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
        raise ConfigError("--faults", path, 'a JSON list such as [{"kind": "kill", "on": "web-1", "at": "5s"}]')
    for place, spec in enumerate(specs):
        for key in ("at", "duration"):
            try:
                _seconds(spec.get(key, 0))
            except ValueError as error:
                raise ConfigError(f"--faults [{place}].{key}", spec[key], "a duration such as 5s") from error
    return specs


def _seconds(given: Any) -> float:
    """Text with a unit, or milliseconds. Raises ValueError."""
    return parse_duration(given) / 1000 if isinstance(given, str) else float(given) / 1000


def _names(given: Any) -> list[str]:
    if given is None:
        return []
    return [each.strip() for each in given.split(",")] if isinstance(given, str) else [str(each) for each in given]
