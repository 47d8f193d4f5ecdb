"""Processes that run learners' code: started ahead, asked over a connection, stopped when they take too long."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from ..environment import ROOT
from .worker import CAN_FORK

LARGEST_ANSWER = 64 * 2**20
START_SECONDS = 120.0  # importing torch on a busy machine


class TookTooLong(Exception):
    """No answer in time."""


class Ended(Exception):
    """The process ended without an answer."""


class Submission:
    """A process with one package and one module's drive.  Close it when done."""

    def __init__(self, connection: Connection, pid: int) -> None:
        self._connection, self.pid = connection, pid

    def ask(self, check: str, case: Any, until: float) -> Any:
        """What the drive's function `check` gives for a case.

        Args:
            until: time.monotonic() at which patience ends.

        Raises:
            TookTooLong, Ended.  The process is of no use afterwards.
        """
        try:
            self._connection.send_bytes(json.dumps({"check": check, "case": case}).encode())
            if not self._connection.poll(max(0.0, until - time.monotonic())):
                self.close()
                raise TookTooLong
            return json.loads(self._connection.recv_bytes(LARGEST_ANSWER))["answer"]
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            self.close()
            raise Ended(str(error)) from error

    def close(self) -> None:
        self._connection.close()
        with contextlib.suppress(OSError):
            if CAN_FORK:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGTERM)

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Pool:
    """Starts submissions.  One process imports torch and is copied for each, where copying is safe."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._listener = Listener(authkey=self._key)
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[Connection, int]] = {}
        self._server: subprocess.Popen[str] | None = None

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
        self._write(server, [self._listener.address, self._key.hex()])
        return server

    @staticmethod
    def _write(server: subprocess.Popen[str], message: Any) -> None:
        assert server.stdin is not None
        server.stdin.write(json.dumps(message) + "\n")
        server.stdin.flush()

    def start(self, folder: Path, drive: Path, preload: Sequence[str] = ()) -> Submission:
        """A process for the package in `folder`, answering by the functions in the file `drive`."""
        token = secrets.token_hex(8)
        job = {"token": token, "folder": str(folder), "drive": str(drive), "preload": ["torch", *preload]}
        with self._lock:
            if self._server is None or self._server.poll() is not None:
                self._server = self._start_server()
            self._write(self._server, job)
            if not CAN_FORK:
                self._server = None
            # Connections of other threads' jobs may come first.
            while token not in self._waiting:
                connection = self._listener.accept()
                if not connection.poll(START_SECONDS):
                    raise Ended("no sign of life from the process for the learner's code")
                hello = json.loads(connection.recv_bytes(LARGEST_ANSWER))
                self._waiting[hello["token"]] = (connection, hello["pid"])
            return Submission(*self._waiting.pop(token))

    def close(self) -> None:
        with self._lock:
            if self._server is not None:
                with contextlib.suppress(OSError):
                    os.kill(self._server.pid, signal.SIGTERM)
                self._server.wait()
                self._server = None
            self._listener.close()
