"""A seed as one HTML page without any reference to the network: page.html with what happened put in as JSON.

The page draws itself (page.html): a lane per host, time to the right, messages as arrows between lanes, faults as
bands, operations as bars. It opens on the evidence of the violation, if there is one, else on the end of the run.
"""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from minidist import __version__
from minidist.engines.checking.history import read
from minidist.engines.checking.operation import Operation, describe
from minidist.engines.checking.values import Key, show
from minidist.engines.checking.verdict import Violation
from minidist.sim.run import Ending, Outcome

TEMPLATE = Path(__file__).with_name("page.html")
MARGIN_S = 0.3  # around the evidence
LAST_S = 5.0  # without evidence: the end


def page(outcome: Outcome, replay: str) -> str:
    """The whole page."""
    data = json.dumps(_data(outcome, replay), ensure_ascii=False, separators=(",", ":"))
    title = escape(f"seed {outcome.seed}: {outcome.ending.value}")
    template = TEMPLATE.read_text(encoding="utf-8")
    # "</script>" within a string of the data would end the script.
    return template.replace("{{title}}", title).replace("{{data}}", data.replace("<", "\\u003c"))


def _data(outcome: Outcome, replay: str) -> dict[str, Any]:
    kept = outcome.kept
    assert kept is not None, "run the seed with keep=True"
    operations = read(outcome.history)
    violations = [violation for verdict in kept.verdicts for violation in verdict.violations]
    marked = {operation.began for violation in violations for operation in violation.evidence}
    return {
        "version": __version__,
        "seed": outcome.seed,
        "ending": outcome.ending.value,
        "ok": outcome.ending is Ending.OK,
        "trace": outcome.digest,
        "virtual_s": round(outcome.virtual_s, 6),
        "replay": replay,
        # What a violation says better is not said twice.
        "problems": [each for each in outcome.problems if not any(found.headline in each for found in violations)],
        "violations": [_violation(violation, kept.process_names, outcome.virtual_s) for violation in violations],
        "hosts": kept.hosts,
        "window": _window(violations[0].evidence if violations else [], outcome.virtual_s),
        "operations": [
            [
                kept.process_names.get(each.process, ""),
                _seconds(each.began_ns),
                _seconds(each.ended_ns),
                each.outcome.value,
                describe(each) if each.key is None else f"{_plain(each.key)}: {describe(each)}",
                each.error or "",
                each.began in marked,
            ]
            for each in operations
        ],
        "faults": [[each.node, each.began_s, each.ended_s, each.text, each.fired] for each in kept.faults],
        "messages": [
            [each.source, each.target, round(each.sent_s, 6), each.arrived_s, each.bytes, each.text]
            for each in kept.messages
        ],
    }


def _violation(violation: Violation, names: Mapping[int, str], virtual_s: float) -> dict[str, Any]:
    """As `minidist check --json` has it, with the host of each process and where to look."""
    shown = violation.to_json()
    for each, operation in zip(shown["evidence"], violation.evidence, strict=True):
        each |= {
            "host": names.get(operation.process, ""),
            "from": _seconds(operation.began_ns),
            "to": _seconds(operation.ended_ns),
        }
    return shown | {"window": _window(violation.evidence, virtual_s)}


def _window(evidence: list[Operation], virtual_s: float) -> list[float]:
    """From when to when the page shows at first, in seconds."""
    if not evidence:
        return [max(0.0, virtual_s - LAST_S), virtual_s]
    begins = min(each.began_ns for each in evidence) / 1e9
    ends = max(each.ended_ns or each.began_ns for each in evidence) / 1e9
    return [max(0.0, begins - MARGIN_S), ends + MARGIN_S]


def _plain(key: Key) -> str:
    return key if isinstance(key, str) else show(key)


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else round(time_ns / 1e9, 6)
