"""A fast `poolkeeper` for the documents' shells, which saves seconds of imports per command.

A process that has imported the command line forks for each command. A small client passes its
arguments, directory, environment and standard streams, and exits with the status of the fork.
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

from app.cli.main import ENTRIES, cli

_CLIENT = """#!{python} -IS
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
message = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(connection, [len(message).to_bytes(4, "big")], [0, 1, 2])
connection.sendall(message)
status = connection.recv(1)
sys.exit(status[0] if status else 70)
"""


@contextmanager
def quick_poolkeeper(folder: Path) -> Iterator[Path]:
    """A directory with a fast `poolkeeper` in it, for a block."""
    address = folder / "address"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        command = [sys.executable, "-m", "tests.docs.quick", str(listening.fileno())]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(command, cwd=root, pass_fds=[listening.fileno()])
    client = folder / "poolkeeper"
    client.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
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
    """Run the command of *caller*; return its exit status."""
    size, streams, _, _ = socket.recv_fds(caller, 4, 3)
    message = caller.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    arguments, directory, environment = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    try:
        cli(arguments, prog_name="poolkeeper")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    for entry in ENTRIES.values():
        entry.implementation()
    _serve(socket.socket(fileno=int(sys.argv[1])))
