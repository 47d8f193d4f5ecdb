"""Processes that run learners' code: started ahead, asked over a connection, stopped when they take too long."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from ..environment import ROOT
from . import cell
from .cell import Limits
from .worker import CAN_FORK

LARGEST_ANSWER = 64 * 2**20
LARGEST_HELLO = 4096  # a token and a number
START_SECONDS = 120.0  # importing torch on a busy machine


class TookTooLong(Exception):
    """No answer in time."""


class Ended(Exception):
    """The process ended without an answer.  `reason`: why, where the judge ended it."""

    reason = ""


class Submission:
    """A process with one package and one module's drive.  Close it when done."""

    def __init__(
        self, connection: Connection, pid: int, watch: Watch | None = None, scratch: Path | None = None
    ) -> None:
        self._connection, self.pid, self._watch, self._scratch = connection, pid, watch, scratch

    def ask(self, check: str, case: Any, until: float) -> Any:
        """What the drive's function `check` gives for a case.

        Args:
            until: time.monotonic() at which patience ends.

        Raises:
            TookTooLong, Ended.  The process is of no use afterwards.
        """
        over = threading.Event()
        try:
            with self._patience(until, over):
                self._connection.send_bytes(json.dumps({"check": check, "case": case}).encode())
                message = self._connection.recv_bytes(LARGEST_ANSWER)
            if over.is_set():
                raise EOFError
            return _usable(json.loads(message)["answer"])
        except (EOFError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.close()
            ended = Ended(str(error))
            ended.reason = self._watch.reasons.get(self.pid, "") if self._watch else ""
            if over.is_set() and not ended.reason:
                raise TookTooLong from error
            if not ended.reason and not isinstance(error, EOFError | ConnectionError):
                ended.reason = "what it said can't be read"
            raise ended from error

    @contextlib.contextmanager
    def _patience(self, until: float, over: threading.Event) -> Iterator[None]:
        """End the process at `until`, also if it began an answer and never ends it, or does not read the question."""

        def end() -> None:
            over.set()
            self._kill()
            with contextlib.suppress(OSError, ValueError, AttributeError):  # who inherited its end may be alive still
                handle = self._connection.fileno()
                family = socket.AF_UNIX if hasattr(socket, "AF_UNIX") else socket.AF_INET
                with socket.fromfd(handle, family, socket.SOCK_STREAM) as ours:
                    ours.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, until - time.monotonic()), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # it may be at the connection

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            if CAN_FORK:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        self._connection.close()
        self._kill()
        if self._watch is not None:
            self._watch.end_strays()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _usable(answer: Any) -> Any:
    """An answer; one that says that something was raised must say it as the worker does.

    Raises:
        ValueError: it does not.  The learner's code shares a process with the worker, and may say anything.
    """
    if isinstance(answer, dict) and "raised" in answer:
        names = answer["raised"]
        texts = [answer.get(key) for key in ("message", "where", "needs", "traceback")]
        if not (isinstance(names, list) and names and all(isinstance(one, str) for one in [*names, *texts])):
            raise ValueError("an exception that can't be read")
        if "in_course" not in answer or not re.fullmatch(r"(\d{1,3}\.\d{1,3})?", answer["needs"]):
            raise ValueError("an exception that can't be read")
    return answer


class Watch(threading.Thread):
    """Ends submissions that take more than the limits allow them, all their processes together."""

    EVERY = 0.2  # seconds

    def __init__(self, limits: Limits) -> None:
        super().__init__(daemon=True)
        self.limits = limits
        self.reasons: dict[int, str] = {}  # why it was ended, by process
        self.server = 0  # the process that all submissions are copies of
        self.mark = os.environ.get(cell.MARK, "")
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self.EVERY):
            if self.server:
                self._look()

    def stop(self) -> None:
        self._over.set()

    def end_strays(self) -> None:
        """End what a submission left behind: marked processes that no longer descend from the one they are copies of."""
        if self.mark:
            cell.end_all(lambda: set(cell.marked(self.mark)) - {self.server} - self._below_server())

    def _below_server(self) -> set[int]:
        return {one.pid for one in cell.descendants(self.server)} if self.server else set()

    def _look(self) -> None:
        everyone = cell.descendants(self.server)
        own = cell.process(self.server)
        shared = own.anonymous if own is not None else 0  # what a copy has in common with it
        for root in (one for one in everyone if one.parent == self.server):
            tree = [root, *cell.below(root.pid, everyone)]
            taken = sum(max(0, one.anonymous - shared) for one in tree)
            if len(tree) > self.limits.processes:
                self._end(root.pid, f"it started more than {self.limits.processes} processes")
            elif taken > self.limits.memory:
                self._end(root.pid, f"it took more than {self.limits.memory / 2**30:.3g} GB of memory")

    def _end(self, root: int, reason: str) -> None:
        """End a process and all below it, also those that are being started while they are listed.

        One that was left would hold the connection open, and the judge would wait for it until its patience ends.
        """
        tree: set[int] = set()
        while new := {root, *(one.pid for one in cell.descendants(root))} - tree:
            self.reasons.update(dict.fromkeys(new, reason))
            cell.send(signal.SIGSTOP, new)  # who stands still starts nobody
            tree |= new
            time.sleep(0.01)  # a fork that had begun comes to its end
        cell.send(signal.SIGKILL, tree)


class Pool:
    """Starts submissions.  One process imports torch and is copied for each, where copying is safe.

    Args:
        limits: what a submission may use; None: whatever the machine has, as for one's own code.
        scratch: with limits, the folder in which each submission gets a folder to write in.  It is not hidden.
    """

    def __init__(self, limits: Limits | None = None, scratch: Path | None = None) -> None:
        self._listener = Listener(backlog=16)
        self._lock = threading.Lock()
        self._arrived = threading.Condition()
        self._expected: set[str] = set()  # tokens of jobs that were given out
        self._waiting: dict[str, tuple[Connection, int]] = {}
        self._server: subprocess.Popen[str] | None = None
        self._closed = False
        self.limits, self._scratch = limits, scratch
        self._watch = Watch(limits) if limits is not None else None
        if self._watch is not None:
            self._watch.start()
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        """Take in connections.  Who does not give the token of a job at once is nobody we wait for."""
        while True:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError):
                if self._closed:
                    return
                continue
            if self._closed:
                connection.close()
                self._listener.close()
                return
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: Connection) -> None:
        try:
            if not connection.poll(START_SECONDS):
                raise EOFError
            hello = json.loads(connection.recv_bytes(LARGEST_HELLO))
            token, pid = str(hello["token"]), int(hello["pid"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError):
            connection.close()
            return
        with self._arrived:
            if token not in self._expected:  # nobody's, or somebody's for the second time
                connection.close()
                return
            self._expected.discard(token)
            self._waiting[token] = (connection, pid)
            self._arrived.notify_all()

    def _start_server(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",  # grading is the same on every machine
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TORCHDYNAMO_DISABLE": "1",  # nothing compiles
            "HF_HUB_OFFLINE": "1",
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment.pop("FLEXNANO", None)
        server = subprocess.Popen(
            [sys.executable, "-m", "course.grading.worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C stops the judge, which then stops this
        )
        self._write(server, self._listener.address)
        if self._watch is not None:
            self._watch.server = server.pid
        return server

    @staticmethod
    def _write(server: subprocess.Popen[str], message: Any) -> None:
        assert server.stdin is not None
        server.stdin.write(json.dumps(message) + "\n")
        server.stdin.flush()

    def warm(self, preload: Sequence[str] = ()) -> None:
        """Let the process import what submissions will need, while its owner does something else."""
        if CAN_FORK:
            with self._lock, contextlib.suppress(OSError):
                self._server = self._living_server()
                self._write(self._server, {"preload": ["torch", *preload]})

    def start(self, folder: Path, drive: Path, preload: Sequence[str] = ()) -> Submission:
        """A process for the package in `folder`, answering by the functions in the file `drive`.

        Raises:
            Ended: it did not start, several times over.
        """
        job: dict[str, Any] = {"folder": str(folder), "drive": str(drive), "preload": ["torch", *preload]}
        scratch: Path | None = None
        if self.limits is not None:
            # The worker takes its package there: beside it lie those of other exercises, which hold the reference.
            scratch = (self._scratch or folder.parent) / secrets.token_hex(8)
            scratch.mkdir()
            job |= {"limits": self.limits.as_dict(), "scratch": str(scratch)}
        for _attempt in range(3):
            job["token"] = secrets.token_hex(16)
            with self._arrived:
                self._expected.add(job["token"])
            try:
                with self._lock:
                    server = self._server = self._living_server()
                    self._write(server, job)
                    if not CAN_FORK:
                        self._server = None
                return Submission(*self._hello(job["token"], server), self._watch, scratch)
            except OSError:  # the process that is copied was ended, by somebody's code
                with self._arrived:
                    self._expected.discard(job["token"])
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        raise Ended("no sign of life from the process for the learner's code")

    def _living_server(self) -> subprocess.Popen[str]:
        if self._server is None or self._server.poll() is not None:
            return self._start_server()
        return self._server

    def _hello(self, token: str, server: subprocess.Popen[str]) -> tuple[Connection, int]:
        """The connection that a job is answered on.

        Raises:
            OSError: the server ended, or the job did, before it said anything.
        """
        until = time.monotonic() + START_SECONDS
        with self._arrived:
            while token not in self._waiting:
                if server.poll() is not None or time.monotonic() > until:
                    self._arrived.wait(0.2)  # it may have said hello just before
                    if token not in self._waiting:
                        raise OSError("ended before it began")
                self._arrived.wait(0.2)
            return self._waiting.pop(token)

    def close(self) -> None:
        self._closed = True
        if self._watch is not None:
            self._watch.stop()
        with self._lock:
            if self._server is not None:
                with contextlib.suppress(OSError):
                    os.kill(self._server.pid, signal.SIGTERM)
                self._server.wait()
                self._server = None
            with contextlib.suppress(OSError):
                Client(self._listener.address).close()  # wakes the thread that waits for connections, which ends then
