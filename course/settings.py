"""Where the course lives.  Who hands out a copy of it changes REPOSITORY, then runs `python -m course notebooks`."""

from __future__ import annotations

REPOSITORY = "https://github.com/flexnano/flexnano"
BRANCH = "main"
DRIVE_FOLDER = "flexnano-course"
"""In Google Drive: where a learner's work is kept."""


def colab_link(notebook: str) -> str:
    """What opens a notebook in Colab.

    >>> colab_link("03_page_table.ipynb")
    'https://colab.research.google.com/github/flexnano/flexnano/blob/main/notebooks/03_page_table.ipynb'
    """
    return f"https://colab.research.google.com/{_on_github('blob')}/notebooks/{notebook}"


def source_link(path: str) -> str:
    """A file of the course as a web page.

    >>> source_link("solutions/flexnano/masks.py")
    'https://github.com/flexnano/flexnano/blob/main/solutions/flexnano/masks.py'
    """
    return f"{REPOSITORY}/blob/{BRANCH}/{path}"


def _on_github(kind: str) -> str:
    return f"github/{REPOSITORY.removeprefix('https://github.com/')}/{kind}/{BRANCH}"
