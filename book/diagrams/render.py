"""Make book/images/NAME.svg from NAME.mmd: python book/diagrams/render.py path/to/mermaid.min.js

Run it after a change of a .mmd file, with the Python that has the book's packages and `mermaid` from npm (11.12); readers and
builders of the book need neither.  The look is our own, with variables for light and dark; mermaid's is thrown away.
"""

# ruff: noqa: E501 (stylesheets and scripts keep their lines)

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "images"
FONT = "-apple-system,'Segoe UI',Helvetica,Arial,'Liberation Sans','DejaVu Sans',sans-serif"
STYLE = f"""
svg{{--ink:#1f2328;--soft:#59636e;--line:#59636e;--card:#ffffff;--box:#eef4fb;--edge:#0072b2;--two:#fdf3e1;--two-edge:#9a6700;
font-family:{FONT};font-size:15px;background:var(--card)}}
@media (prefers-color-scheme:dark){{svg{{--ink:#f0f6fc;--soft:#b0bac4;--line:#a3adb8;--card:#0d1117;--box:#152638;--edge:#58a6ff;--two:#33260a;--two-edge:#d29922}}}}
text{{fill:var(--ink);stroke:none}}
.node rect,.node polygon,.node path,.node circle,.label-container,.actor{{fill:var(--box);stroke:var(--edge);stroke-width:1.3px}}
.node polygon{{fill:var(--two);stroke:var(--two-edge)}}
.node .divider path,.divider{{stroke:var(--edge);stroke-width:1px;fill:none}}
.label-group text,.classTitle{{font-weight:600}}
.edgePaths path,.edgePath path,.relation,.flowchart-link{{fill:none;stroke:var(--line);stroke-width:1.5px}}
.edge-pattern-dashed,.dashed-line{{stroke-dasharray:4 3}}
.marker,.arrowMarkerPath,marker path{{fill:var(--line);stroke:var(--line)}}
.edgeLabel rect,.labelBkg,.background{{fill:var(--card);stroke:none}}
.edgeLabel text{{fill:var(--ink);font-size:14px}}
.actor-line,.messageLine0,.messageLine1{{stroke:var(--line);stroke-width:1.3px;fill:none}}
.messageLine1{{stroke-dasharray:4 3}}
.loopLine{{fill:none;stroke:var(--two-edge);stroke-width:1.3px;stroke-dasharray:4 3}}
.labelBox{{fill:var(--two);stroke:var(--two-edge)}}
text.actor,text.actor>tspan{{fill:var(--ink);stroke:none;font-weight:600}}
"""
PAGE = """<!doctype html><meta charset="utf-8"><body><div id="out"></div><script src="mermaid.js"></script></body>"""
DRAW = """async ([source, font]) => {
  mermaid.initialize({startOnLoad: false, htmlLabels: false, flowchart: {htmlLabels: false, useMaxWidth: false, nodeSpacing: 26, rankSpacing: 26, wrappingWidth: 400, padding: 10},
    class: {htmlLabels: false, useMaxWidth: false, nodeSpacing: 26, rankSpacing: 60}, sequence: {useMaxWidth: false, mirrorActors: false, messageMargin: 28, width: 140, actorMargin: 16,
    actorFontFamily: font, messageFontFamily: font, actorFontSize: 15, messageFontSize: 14, wrap: false},
    theme: "base", themeVariables: {fontFamily: font, fontSize: "15px"}, fontFamily: font, securityLevel: "loose"});
  const drawn = await mermaid.render("drawn", source);
  return drawn.svg;
}"""


def sources() -> list[Path]:
    return sorted(HERE.glob("*.mmd"))


def mark(path: Path) -> str:
    """What an SVG carries to say from which source it was made."""
    return f"<!-- from {path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]} -->"


def own_look(svg: str, path: Path) -> str:
    svg = re.sub(r"<style>.*?</style>", "", svg, count=0, flags=re.DOTALL)
    svg = re.sub(r'\s(?:font-family|font-size|font-weight)="[^"]*"', "", svg)
    svg = re.sub(r'(<svg\b[^>]*?)\sstyle="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\sstyle="(?:[^"]*)"', _kept_style, svg)
    svg = re.sub(r'\s(?:fill|stroke)="(?!none|url)[^"]*"', "", svg)
    svg = svg.replace("<br>", "<br/>")
    head, rest = svg.split(">", 1)
    wide, high = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', head).groups()  # type: ignore[union-attr]
    head = re.sub(r'\s(?:width|height|role|aria-roledescription)="[^"]*"', "", head)
    head = f'{head} width="{float(wide):.0f}" height="{float(high):.0f}" role="img"'
    style = STYLE + (".node text{text-anchor:middle}\n" if "flowchart" in path.read_text(encoding="utf-8") else "")
    svg = f"{head}>\n{mark(path)}\n<style>{style}</style>{rest}\n"
    return re.sub(r"(\d+\.\d{2})\d+", r"\1", svg)


def _kept_style(match: re.Match[str]) -> str:
    kept = [
        one for one in match[0][8:-1].split(";") if one.strip().startswith(("text-anchor", "text-align", "display"))
    ]
    return f' style="{";".join(kept)}"' if kept else ""


def main(mermaid: str) -> None:
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(HERE.parents[1]))
    from course.book import find_browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content(PAGE)
        page.add_script_tag(path=mermaid)
        for path in sources():
            svg = page.evaluate(DRAW, [path.read_text(encoding="utf-8"), FONT])
            (IMAGES / f"{path.stem}.svg").write_text(own_look(svg, path), encoding="utf-8")
            print(f"{path.stem}.svg")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
