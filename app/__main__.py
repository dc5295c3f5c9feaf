"""Entry point of `python -m app` and of the script `poolkeeper`."""

import errno
import gc
import os
import sys

from app.cli.main import cli
from app.text.printable import allow_any_encoding, print_error


def main() -> None:
    _open_closed_streams()
    allow_any_encoding()
    try:
        cli(prog_name="poolkeeper")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_output()
        print_error("Cannot write the output: no space is left.")
        sys.exit(1)
    finally:
        # Python ends with a search for cycles in all that lives: half a second for the service.
        gc.freeze()


def _open_closed_streams() -> None:
    """Open standard streams that the caller closed (`>&-`) on the null device.

    Otherwise the next file or socket would get the file descriptor of one of them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def _discard_output() -> None:
    """Forget what is not written yet: at its end Python would try again, and end with 120."""
    with open(os.devnull, "wb") as null:  # noqa: PTH123 - a device, no path of ours
        os.dup2(null.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
