"""The failure bundle: a directory with everything there is to know about one seed.

replay          the command that runs it again, executable
report.html     lanes, messages, faults, operations and what is wrong, as a picture
problems.txt    what is wrong, in words
history.jsonl   what the clients did and saw, for `minidist check`
faults.json     the faults, for `--faults`
trace.txt       what happened, in order of virtual time
topology.toml   a copy of the topology file; of a scenario or a test, scenario.py
logs/NODE.log   what each node said
"""

import json
from pathlib import Path

from minidist.sim.page import page
from minidist.sim.run import Kept, Outcome


def write_bundle(directory: str | Path, outcome: Outcome, replay: str, file: str | Path) -> None:
    """Write all of it; files that are there already are replaced. Raises OSError."""
    place = Path(directory)
    kept = _kept(outcome)
    (place / "logs").mkdir(parents=True, exist_ok=True)
    texts = {
        "replay": f"#!/bin/sh\n{replay}\n",
        "report.html": page(outcome, replay),
        "problems.txt": "\n\n".join(outcome.problems) + "\n",
        "history.jsonl": "".join(f"{line}\n" for line in outcome.history),
        "faults.json": json.dumps(outcome.specs, indent=1) + "\n",
        "trace.txt": "\n".join([outcome.line(), kept.header, *kept.trace]) + "\n",
    }
    for each in {str(file), kept.topology} - {""}:
        texts[_name_of_copy(Path(each))] = Path(each).read_text(encoding="utf-8")
    texts |= {f"logs/{host}.log": "\n".join(lines) + "\n" for host, lines in kept.logs.items()}
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8")
    (place / "replay").chmod(0o755)


def write_page(path: str | Path, outcome: Outcome, replay: str) -> None:
    """Write the picture alone. Raises OSError."""
    Path(path).write_text(page(outcome, replay), encoding="utf-8")


def _name_of_copy(file: Path) -> str:
    return "topology.toml" if file.suffix == ".toml" else "scenario.py"


def _kept(outcome: Outcome) -> Kept:
    assert outcome.kept is not None, "run the seed with keep=True"
    return outcome.kept
