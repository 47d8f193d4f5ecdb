"""Open every page of the built book in a browser and say what is wrong with it, as JSON.

python book/_tools/look.py _build/html chromium [--shots FOLDER] [--pages NAME ...]

At 1280 and 390 pixels, light and dark: does anything stick out sideways, does the console report an error, is anything asked of
another host, does a picture fail to load, does axe find a serious barrier; and does the search find something.
"""

# ruff: noqa: E501 (stylesheets and scripts keep their lines)

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import json
import sys
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

AXE = Path(__file__).resolve().parent / "axe" / "axe.min.js"
WIDTHS = (1280, 390)
THEMES = ("light", "dark")
SERIOUS = ("serious", "critical")
WIDER = """() => {
  const wide = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth <= wide + 1) return found;
  for (const one of document.querySelectorAll("main *, header *, footer *")) {
    const box = one.getBoundingClientRect();
    let inside = false;
    for (let up = one.parentElement; up && up !== document.body; up = up.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(up).overflowX)) { inside = true; break; }
    if (!inside && box.width && box.right > wide + 1 && found.length < 3)
      found.push(one.tagName.toLowerCase() + "." + one.className + " to " + Math.round(box.right));
  }
  return found.length ? found : ["the page scrolls sideways: " + document.documentElement.scrollWidth];
}"""
BROKEN = "() => [...document.images].filter(i => i.complete && !i.naturalWidth && i.src).map(i => i.src)"
NAMELESS = "() => [...document.querySelectorAll('main img')].filter(i => !i.alt.trim()).map(i => i.src)"
SMALL = """() => [...document.querySelectorAll('.picture svg text')].map(t => {
  const m = t.getScreenCTM(); return parseFloat(getComputedStyle(t).fontSize) * (m ? m.a : 1); }).filter(s => s < 8.9).length"""
RUN_AXE = "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Any:
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def look(folder: Path, browser_path: str, shots: Path | None, only: list[str]) -> list[dict[str, Any]]:
    pages = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.html"))]
    pages = [
        page
        for page in pages
        if not page.startswith("_") and page not in ("genindex.html", "py-modindex.html", "index.html")
    ]
    pages = [page for page in pages if not only or any(name in page for name in only)]
    found: list[dict[str, Any]] = []
    with served(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for width in WIDTHS:
            for theme in THEMES:
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
                )
                page = context.new_page()
                for name in pages:
                    troubles = _open(page, f"{address}/{name}", address)
                    troubles += _axe(page)
                    found += [{"page": name, "width": width, "theme": theme, "trouble": one} for one in troubles]
                    if shots:
                        shots.mkdir(parents=True, exist_ok=True)
                        shot = shots / f"{name.removesuffix('.html').replace('/', '-')}-{width}-{theme}.png"
                        page.screenshot(path=str(shot), full_page=True)
                context.close()
        if not only:
            found += _search(browser, address)
            found += _quizzes(browser, address, pages)
        browser.close()
    return found


def _open(page: Page, url: str, address: str) -> list[str]:
    said: list[str] = []

    def console(message: Any) -> None:
        if message.type in ("error", "warning"):
            said.append(f"console: {message.text}")

    def request(one: Any) -> None:
        if not one.url.startswith((address, "data:", "blob:")):
            said.append(f"asks another host: {one.url}")

    def response(one: Any) -> None:
        if one.status >= 400:
            said.append(f"{one.status}: {one.url}")

    def broke(error: Any) -> None:
        said.append(f"script: {error}")

    listeners = {"console": console, "request": request, "response": response, "pageerror": broke}
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(url, wait_until="load")
    page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
    page.wait_for_timeout(50)
    said += [f"sticks out: {one}" for one in page.evaluate(WIDER)]
    said += [f"does not load: {one}" for one in page.evaluate(BROKEN)]
    said += [f"no alternative text: {one}" for one in page.evaluate(NAMELESS)]
    if small := page.evaluate(SMALL):
        said.append(f"{small} texts of pictures below 9 pixels")
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return said


def _axe(page: Page) -> list[str]:
    page.add_script_tag(path=str(AXE))
    return [
        f"axe {one['impact']}: {one['id']}: {one['nodes'][0]['html'][:160]} ({len(one['nodes'])})"
        for one in page.evaluate(RUN_AXE)
        if one["impact"] in SERIOUS
    ]


def _search(browser: Any, address: str) -> list[dict[str, Any]]:
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=preemption")
    try:
        page.wait_for_selector("#search-results li a", timeout=10_000)
        return []
    except Exception:
        return [
            {"page": "search.html", "width": 1280, "theme": "light", "trouble": "searching `preemption` finds nothing"}
        ]
    finally:
        page.close()


def _quizzes(browser: Any, address: str, pages: list[str]) -> list[dict[str, Any]]:
    """Every choice of every question says something, and only the right one says so."""
    found = []
    for name in [page for page in pages if "quizzes/" in page]:
        page = browser.new_page()
        page.goto(f"{address}/{name}")
        for question in page.query_selector_all(".quiz-question"):
            rights = 0
            for choice in question.query_selector_all("input"):
                choice.check()
                said = question.query_selector(".quiz-said").inner_text()
                rights += said.startswith("✓")
                if len(said) < 30:
                    found.append(
                        {"page": name, "width": 1280, "theme": "light", "trouble": f"a choice says only {said!r}"}
                    )
            if rights != 1:
                found.append(
                    {"page": name, "width": 1280, "theme": "light", "trouble": f"{rights} right choices in a question"}
                )
        if "10 of 10 answered" not in page.inner_text(".quiz-score"):
            found.append({"page": name, "width": 1280, "theme": "light", "trouble": "the score does not count"})
        page.close()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("browser")
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--pages", nargs="*", default=[])
    options = parser.parse_args()
    troubles = look(options.folder, options.browser, options.shots, options.pages)
    json.dump(troubles, sys.stdout, indent=1)
