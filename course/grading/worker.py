"""The process with the learner's code: `python -m course.grading.worker`.

It imports torch once, without any learner's code.  For each job it starts a copy of itself (fork, where that is safe; else
it is the only copy), which connects to the judge, imports the package in the given folder and the module's drive.py, and then
answers cases until the connection closes.  Jobs come as lines of JSON on stdin.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import sys
import traceback
from multiprocessing.connection import Client, Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from . import cell
from .checks import plain

CAN_FORK = sys.platform.startswith("linux")


def main() -> None:
    address = _address(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        job = json.loads(line)
        for name in job["preload"]:
            with contextlib.suppress(Exception):  # what can't be imported is reported by the drive that needs it
                importlib.import_module(name)
        if "token" not in job:  # nothing but that
            continue
        if CAN_FORK:
            while True:  # copies that have ended
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break
            if os.fork() != 0:
                continue
            os.setsid()  # so that whatever the learner's code starts is stopped with it
        code = 1
        try:
            connection = Client(address)
            pid = _confine(job) if CAN_FORK and job.get("limits") else os.getpid()
            _serve(connection, job, pid)
            code = 0
        finally:
            os._exit(code)  # without what the learner's code may have registered for the exit


def _address(address: Any) -> Any:
    return tuple(address) if isinstance(address, list) else address


def _confine(job: dict[str, Any]) -> int:
    """Lay the limits of the job on this process.  Returns its id as the judge knows it.

    What the job names is taken along into the scratch folder: from where it lies, other packages can be seen.
    """
    limits, scratch = job["limits"], job["scratch"]
    package = {path.name: path.read_bytes() for path in Path(job["folder"]).glob("*.py")}
    drive = Path(job["drive"]).read_bytes()
    pid = os.getpid()
    if limits["walled"]:
        pid = cell.shut_in(scratch, limits["scratch"], limits["hidden"])
    inside = Path(scratch, "submission", "flexnano")
    inside.mkdir(parents=True)
    for name, content in package.items():
        (inside / name).write_bytes(content)
    (inside.parent / "drive.py").write_bytes(drive)
    job["folder"], job["drive"] = str(inside), str(inside.parent / "drive.py")
    cell.limit(limits)
    os.chdir(scratch)
    os.environ.update(TMPDIR=scratch, HOME=scratch)
    return pid


def _serve(connection: Connection, job: dict[str, Any], pid: int) -> None:
    connection.send_bytes(json.dumps({"token": job["token"], "pid": pid}).encode())
    # What the learner's code prints must not reach the terminal in the middle of a card.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    folder = Path(job["folder"])
    sys.path.insert(0, str(folder.parent))
    importlib.invalidate_caches()
    drive: ModuleType | None = None
    while True:
        try:
            question = json.loads(connection.recv_bytes())
        except EOFError:
            return
        answer: Any
        try:
            if drive is None:
                drive = _load(Path(job["drive"]))
            answer = {"answer": plain(getattr(drive, question["check"])(question["case"]))}
        except BaseException as error:  # SystemExit and KeyboardInterrupt are a learner's answer too
            answer = {"answer": raised(error, folder)}
        connection.send_bytes(json.dumps(answer).encode())


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("drive", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["drive"] = module
    spec.loader.exec_module(module)
    return module


def raised(error: BaseException, folder: Path) -> dict[str, Any]:
    """An exception as plain data: classes from its own upwards, message, place in the learner's files, traceback there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
    where = f"{Path(frames[-1].filename).name}, in {frames[-1].name}: {frames[-1].line}" if frames else ""
    try:
        message = str(error)
    except BaseException as nested:  # its __str__ is the learner's code too
        message = f"(its message can't be made: {type(nested).__name__})"
    missing = re.match(r"Exercise (\d+\.\d+):", message) if isinstance(error, NotImplementedError) else None
    return {
        "raised": [cls.__name__ for cls in type(error).__mro__ if cls is not object],
        "message": message[:2000],
        "where": where,
        "needs": missing[1] if missing else "",
        "in_course": not frames,
        "traceback": "".join(traceback.format_exception(error))[-8000:],
    }


if __name__ == "__main__":
    main()
