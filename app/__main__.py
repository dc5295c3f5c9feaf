"""The command line's front: `python -m app`, and the script `poolkeeper`.

Commands that speak with a running service must not wait for all that a service is made of: it
is only imported for those that run one.
"""

from __future__ import annotations

import sys

from app.printable import use_any_encoding
from app.terminal.cli import alone, names


def main() -> None:
    """Run the command line."""
    use_any_encoding()
    if len(sys.argv) > 1 and sys.argv[1] in names():
        alone()()
        return
    from app import cli as service  # noqa: PLC0415 - takes a second, see above

    service.main()


if __name__ == "__main__":
    main()
