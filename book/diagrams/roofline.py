"""Make book/images/roofline.svg from book/data/cards.yml: python book/diagrams/roofline.py"""

# ruff: noqa: E501 (stylesheets and scripts keep their lines)

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

BOOK = Path(__file__).resolve().parents[1]
WEIGHTS, CACHE, TOKENS = (
    16.06e9,
    131072,
    500,
)  # an 8-billion-parameter model in 16 bits; bytes a token; tokens a sequence
LEFT, RIGHT, TOP, BOTTOM, WIDE, HIGH = 78, 150, 44, 62, 820, 460
X, Y = (1, 1024), (10, 100_000)
LOOKS = {"L4": ("--one", "7 4"), "A100 40 GB": ("--two", "2 3"), "H100 SXM": ("--three", "")}
STYLE = """
svg{--ink:#1f2328;--grid:#d1d9e0;--card:#ffffff;--one:#9a5b00;--two:#00704f;--three:#0072b2;font-family:-apple-system,"Segoe UI",Helvetica,Arial,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){svg{--ink:#f0f6fc;--grid:#3d444d;--card:#0d1117;--one:#f0b429;--two:#3fd6a4;--three:#6cb6ff}}
text{fill:var(--ink);font-size:15px}
.grid{stroke:var(--grid);stroke-width:1}
.card{fill:var(--card)}
.curve{fill:none;stroke-width:3}
.name{font-weight:600}
.bend{fill:none;stroke:var(--ink);stroke-width:1.5}
"""


def tokens_a_second(card: dict[str, Any], sequences: float) -> float:
    reading = (WEIGHTS + sequences * TOKENS * CACHE) / (card["gb_per_second"] * 1e9)
    return sequences / max(reading, sequences * WEIGHTS / (card["tflops"] * 1e12))


def most_sequences(card: dict[str, Any]) -> float:
    """How many have room beside the weights."""
    return (card["memory_gb"] * 1e9 - WEIGHTS) / (TOKENS * CACHE)


def place(x: float, y: float) -> tuple[float, float]:
    across = math.log(x / X[0]) / math.log(X[1] / X[0])
    up = math.log(y / Y[0]) / math.log(Y[1] / Y[0])
    return LEFT + across * (WIDE - LEFT - RIGHT), HIGH - BOTTOM - up * (HIGH - TOP - BOTTOM)


def draw() -> str:
    cards = yaml.safe_load((BOOK / "data" / "cards.yml").read_text(encoding="utf-8"))["cards"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect class="card" width="{WIDE}" height="{HIGH}"/>',
    ]
    for x in (1, 4, 16, 64, 256, 1024):
        (across, low), (_, high) = place(x, Y[0]), place(x, Y[1])
        parts.append(f'<path class="grid" d="M{across:.1f} {low:.1f}V{high:.1f}"/>')
        parts.append(f'<text x="{across:.1f}" y="{low + 22:.1f}" text-anchor="middle">{x:,}</text>')
    for y in (10, 100, 1000, 10_000, 100_000):
        (left, up), (right, _) = place(X[0], y), place(X[1], y)
        parts.append(f'<path class="grid" d="M{left:.1f} {up:.1f}H{right:.1f}"/>')
        parts.append(f'<text x="{left - 10:.1f}" y="{up + 5:.1f}" text-anchor="end">{y:,}</text>')
    middle = (LEFT + WIDE - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HIGH - 12}" text-anchor="middle">sequences in a decode step</text>')
    parts.append(f'<text x="{LEFT - 66}" y="20">tokens/s, at most</text>')
    bend = WEIGHTS / (TOKENS * CACHE)  # where the cache takes as long to read as the weights
    for card in cards:
        most = min(most_sequences(card), X[1])
        if most < 1:
            continue
        colour, dashes = LOOKS[card["name"]]
        points = [place(x, tokens_a_second(card, x)) for x in [most ** (i / 40) for i in range(41)]]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dashed = f";stroke-dasharray:{dashes}" if dashes else ""
        parts.append(f'<path class="curve" style="stroke:var({colour}){dashed}" d="M{line}"/>')
        x, y = points[-1]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" style="fill:var({colour})"/>')
        parts.append(f'<text class="name" x="{x + 12:.1f}" y="{y + 5:.1f}">{card["name"]}</text>')
        if most > bend:
            x, y = place(bend, tokens_a_second(card, bend))
            parts.append(f'<circle class="bend" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
    x, _ = place(bend, Y[0])
    parts.append(
        f'<text x="{x:.1f}" y="{HIGH - BOTTOM - 12}" text-anchor="middle">○ at {bend:.0f}: cache = weights</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (BOOK / "images" / "roofline.svg").write_text(draw(), encoding="utf-8")
