"""`python -m course COMMAND`: what `make` calls, and what works where there is no make.

Starts under any Python 3 with nothing installed, so that a wrong version is told in words and not as a syntax error.
"""

import sys

OLDEST, TOO_NEW = (3, 11), (3, 14)


def main():  # type: ignore[no-untyped-def]  # annotations of newer Pythons must not stop an older one from saying so
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        print(
            f"The course needs Python 3.11, 3.12 or 3.13, and this is {sys.version.split()[0]} ({sys.executable}).\n"
            "Name another one, for example:  make course PYTHON=python3.12   or   python3.12 -m course setup",
            file=sys.stderr,
        )
        return 1
    from course.commands import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
