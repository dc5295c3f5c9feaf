"""Commands that run in this process, against one service."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from typer.testing import CliRunner, Result

from app.cli.main import cli


class Shell:
    """Runs commands against one address."""

    def __init__(self, url: str) -> None:
        self._environment: Mapping[str, str] = {"POOLKEEPER_URL": url, "COLUMNS": "200"}

    async def run(self, *words: str, stdin: str = "", status: int = 0) -> Result:
        """Run one command, which must exit with this status."""
        result = await asyncio.to_thread(
            CliRunner().invoke, cli, words, input=stdin, env=self._environment
        )
        assert result.exit_code == status, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    async def json(self, *words: str, stdin: str = "", status: int = 0) -> Any:  # noqa: ANN401 - as JSON is
        """The JSON output of a command."""
        return json.loads((await self.run(*words, stdin=stdin, status=status)).stdout)
