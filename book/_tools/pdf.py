"""Print the book's one long page: python book/_tools/pdf.py PAGE.html BOOK.pdf path/to/chromium"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FOOTER = '<div style="width:100%;font-size:8px;text-align:center"><span class="pageNumber"></span></div>'
UNFOLD = "() => document.querySelectorAll('details').forEach(one => one.open = true)"
STYLE = Path(__file__).resolve().parent / "print.css"


def main(source: Path, file: Path, browser_path: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(color_scheme="light")
        page.goto(source.resolve().as_uri(), wait_until="load", timeout=120_000)
        page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
        page.evaluate(UNFOLD)
        page.add_style_tag(path=str(STYLE))
        page.pdf(
            path=str(file),
            format="A4",
            print_background=True,
            tagged=True,
            outline=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            margin={"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
        )
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
