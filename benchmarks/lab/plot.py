"""A result as a picture: one bar for each figure, its value over what must be reached, drawn as SVG by hand.

A bar that ends right of the line at 1 has reached its target; values for which less is better are turned round, so
that right is always better. Figures without a target are left out.
"""

from html import escape
from typing import Any

WIDTH, BAR, GAP, LABEL, TOP = 900, 22, 10, 330, 60
SCALE = 220  # pixels for 1.0
MOST = 2.4  # bars end here: how far a target is exceeded beyond this matters little
COLOURS = {"aim reached": "#2a9d5c", "ok": "#e0a526", "MISSED": "#c8453b"}


def render(document: dict[str, Any]) -> str:
    """The SVG text of a result's JSON document."""
    figures = [figure for figure in document["figures"] if figure["target"]["must"] is not None]
    height = TOP + len(figures) * (BAR + GAP) + 40
    title = f"minidist {document['subject']}, {document['time'][:10]}, commit {document['commit']}"
    x = LABEL + SCALE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" style="font:13px sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        text(20, 28, title, "font-size:16px;font-weight:bold"),
        *(bar(figure, TOP + index * (BAR + GAP)) for index, figure in enumerate(figures)),
        line(x, TOP - 8, height - 34),
        text(x - 40, height - 16, "must be reached"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def bar(figure: dict[str, Any], y: int) -> str:
    """Label, bar, a mark for the aim, the value."""
    value, target = figure["value"], figure["target"]
    length = min(reached(value, target["must"], target["higher"]), MOST) * SCALE
    label = f"{figure['case']}: {figure['what']}"
    parts = [
        text(20, y + 15, label),
        f'<rect x="{LABEL}" y="{y}" width="{length:.0f}" height="{BAR}" fill="{COLOURS[figure["verdict"]]}"/>',
        text(LABEL + length + 6, y + 15, shown(figure)),
    ]
    if target["aim"] is not None:
        x = LABEL + min(reached(target["aim"], target["must"], target["higher"]), MOST) * SCALE
        parts.append(line(x, y - 3, y + BAR + 3, "3 2"))
    return "\n".join(parts)


def reached(value: float, must: float, higher: bool) -> float:
    """How much of the target a value is: 1 is on it, more is better."""
    return value / must if higher else must / value if value else MOST


def shown(figure: dict[str, Any]) -> str:
    if figure["is_ratio"]:
        return f"{figure['value']:.2f}× of the peer"
    return f"{figure['value']:.3g} {figure['unit']}"


def text(x: float, y: float, words: str, style: str = "") -> str:
    attribute = f' style="{style}"' if style else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{attribute}>{escape(words)}</text>'


def line(x: float, top: float, bottom: float, dashes: str = "none") -> str:
    return f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top}" y2="{bottom}" stroke="#222" stroke-dasharray="{dashes}"/>'
