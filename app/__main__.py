"""The command line's front: `python -m app`, and the script `poolkeeper`.

Commands that speak with a running service must not wait for all that a service is made of: it
is only imported for those that run one.
"""

from __future__ import annotations

import errno
import os
import sys

from app.cli.client.commands import client_cli, command_names
from app.runtime.printable import allow_any_encoding, print_error


def main() -> None:
    """Run the command line."""
    _open_what_is_closed()
    allow_any_encoding()
    try:
        _run()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print_error("Cannot write the output: no space is left.")
        sys.exit(1)


def _run() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in command_names():
        client_cli()()
        return
    from app.cli import main as service  # noqa: PLC0415 - takes a second, see above

    service.main()


def _open_what_is_closed() -> None:
    """Give standard streams that the caller has closed (`>&-`) something to lead to.

    Otherwise the next file or socket would be taken for one of them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


if __name__ == "__main__":
    main()
