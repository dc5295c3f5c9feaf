"""The documented move of a tenant takes its data along, and runs its code with its own rights."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from app.embedded.binaries import installed_package
from tests.fixtures.canary import CANARY
from tests.fixtures.missing import missing
from tests.fixtures.postgres import Database
from tests.fixtures.preloaded import preloaded_program
from tests.fixtures.processes import completed
from tests.fixtures.served import Serve

DOCUMENT = (Path(__file__).parents[2] / "docs" / "move-a-tenant.md").read_text(encoding="utf-8")
[MOVE] = re.findall(
    r"^# Move a tenant$(.*?)^\*\*From the shared pool", DOCUMENT, re.MULTILINE | re.DOTALL
)
BLOCKS = re.findall(r"^```sh[^\n]*\n(.*?)^```", MOVE, re.MULTILINE | re.DOTALL)
_, STOP, AWAIT_END, COPY_SCHEMA, _, COPY_PUBLIC, REPLACE, *RESTORE, RESUME = BLOCKS
PASSWORD, TO_DATABASE, TO_SCHEMA = RESTORE
# Whoever writes to the table runs its check.
HOSTILE = (
    """CREATE FUNCTION fits(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
            CREATE ROLE tenant_superuser SUPERUSER;
        END IF;
        RETURN true;
    END $$""",
    "CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, n int CHECK (fits(n)))",
    "INSERT INTO orders (n) VALUES (42)",
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("strategies", "copy", "restore"),
    [
        (("per_database", "per_tenant"), COPY_PUBLIC, TO_SCHEMA),
        (("per_tenant", "per_database"), COPY_SCHEMA, TO_DATABASE),
    ],
)
async def test_a_move_takes_the_data_along_and_runs_no_code_of_the_tenant_as_superuser(
    serve: Serve,
    database: Database,
    tmp_path: Path,
    *,
    strategies: tuple[str, str],
    copy: str,
    restore: str,
) -> None:
    if not shutil.which("bash"):
        missing("The documents' commands need bash.")
    preloaded_program(tmp_path)
    (tmp_path / "password").write_text(f"{CANARY}\n" * 2)
    superuser = f"host={database.host} port={database.port} user={database.user}"
    async with serve() as service:
        await service.tenant("acme", strategies[0])
        for sql in HOSTILE:
            write = {"sql": sql, "read_only": False}
            (await service.client.post("/v1/tenants/acme/query", json=write)).raise_for_status()
        script = [f"set -e; old={shlex.quote(superuser)}; new=$old"]
        for commands in (STOP, AWAIT_END, copy, REPLACE, PASSWORD, restore, RESUME):
            here = commands.replace("dbname=tenants", f"dbname={database.database}")
            here = here.replace("--server main", "--server local")
            here = here.replace("--strategy per_database", f"--strategy {strategies[1]}")
            script.append(f"{{\n{here}}} < password")
        done = await completed(
            *("bash", "-c", "\n".join(script)),
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{tmp_path}:{installed_package()}/pginstall/bin:{os.environ['PATH']}",
                "PGPASSWORD": database.password,
                "POOLKEEPER_URL": str(service.client.base_url),
            },
            # Without a terminal, passwords are read from standard input.
            start_new_session=True,
        )
        assert done.returncode == 0, done.stderr
        count = {"sql": "SELECT sum(n)::int FROM tenant_acme.orders"}
        answer = await service.client.post("/v1/tenants/acme/query", json=count)
        assert answer.json()["rows"] == [[42]]
    roles = "SELECT rolname FROM pg_roles WHERE rolname ~ '^tenant_'"
    assert await database.administer(roles) == [("tenant_acme",)]
