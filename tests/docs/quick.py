"""`poolkeeper` for the documents' shells, without seconds of imports each time.

A process that has imported the command line forks for each command. A small client hands it
its words, folder, environment and standard streams, and ends as the fork ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.main import cli

_CLIENT = """#!{python} -IS
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect({door!r})
said = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(door, [len(said).to_bytes(4, "big")], [0, 1, 2])
door.sendall(said)
ends = door.recv(1)
sys.exit(ends[0] if ends else 70)
"""


@contextmanager
def quick_poolkeeper(folder: Path) -> Iterator[Path]:
    """A folder with a quick `poolkeeper` in it, for a block."""
    door = folder / "door"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(door))
        listening.listen()
        command = [sys.executable, "-m", "tests.docs.quick", str(listening.fileno())]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(command, cwd=root, pass_fds=[listening.fileno()])
    client = folder / "poolkeeper"
    client.write_text(_CLIENT.format(python=sys.executable, door=str(door)))
    client.chmod(0o755)
    try:
        yield folder
    finally:
        process.terminate()
        process.wait()


def _serve(listening: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        caller, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            caller.sendall(bytes([_run(caller)]))
            os._exit(0)
        caller.close()


def _run(caller: socket.socket) -> int:
    """Be the command that *caller* is; how it ends."""
    size, streams, _, _ = socket.recv_fds(caller, 4, 3)
    said = caller.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    words, folder, environment = json.loads(said)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        cli(words, prog_name="poolkeeper")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
