"""A result as a table in plain text, and its first lines: on what, which versions, which commit."""

from typing import Any

HEADINGS = ("case", "what", "minidist", "peer", "ratio", "pairs", "must", "aim", "verdict")


def render(document: dict[str, Any]) -> str:
    """The table of a result's JSON document."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [
        f"{document['subject']}: {document['time']}, commit {document['commit']}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}",
        *([versions] if versions else []),
        "",
        *columns([HEADINGS, *map(row, document["figures"])]),
    ]
    return "\n".join(lines + notes(document))


def row(figure: dict[str, Any]) -> tuple[str, ...]:
    """One figure; a fixed target is judged without a peer, and then there is no ratio."""
    target = figure["target"]
    spread = figure["spread"]
    return (
        figure["case"],
        figure["what"],
        f"{number(figure['ours'])} {figure['unit']}",
        f"{number(figure['theirs'])} {figure['unit']}" if figure["theirs"] is not None else "",
        f"{figure['value']:.2f}×" if figure["is_ratio"] else "",
        f"{spread[0]:.2f}–{spread[1]:.2f}" if spread else "",
        limit(target["must"], target["higher"]),
        limit(target["aim"], target["higher"]),
        figure["verdict"],
    )


def limit(value: float | None, higher: bool) -> str:
    return "" if value is None else f"{'≥' if higher else '≤'} {value:.3g}" if value < 1000 else f"≤ {value:.0f}"


def number(value: float) -> str:
    """Three digits are what a measurement is worth; large numbers in thousands."""
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def notes(document: dict[str, Any]) -> list[str]:
    """Remarks on figures, and how busy both cores were in each case."""
    lines = [
        f"{figure['case']}, {figure['what']}: {figure['note']}" for figure in document["figures"] if figure["note"]
    ]
    for case in dict.fromkeys(run["case"] for run in document["runs"] if run["server_core"]):
        for server in dict.fromkeys(run["server"] for run in document["runs"]):
            runs = [run for run in document["runs"] if (run["case"], run["server"]) == (case, server)]
            serving = sum(run["server_core"] for run in runs) / len(runs)
            loading = sum(run["load_core"] for run in runs) / len(runs)
            lines.append(f"{case}, {server}: server's core {serving:.0%} busy, load's core {loading:.0%}")
    return ["", *lines] if lines else []
