"""SQL that lets the service's role log in, chosen by the reason of the refusal.

The password is a placeholder: the one in the settings is never printed.
"""

from app.domain.identifier import quoted

_PASSWORD = "PASSWORD '<password>'"  # noqa: S105 - a placeholder


def login_sql(
    error: BaseException, *, role: str, database: str, attributes: str, options: str = ""
) -> str | None:
    """Make SQL for a superuser, a statement or comment per line; None if no SQL helps.

    Args:
        error: a refused login, or an error caused by one.
        role: the service's role, which may not exist.
        database: the database that it logs in to, which may not exist.
        attributes: attributes of the role, besides LOGIN.
        options: options of the database, besides its owner.
    """
    role, database = quoted(role), quoted(database)
    create_role = " ".join(filter(None, ("CREATE ROLE", role, "LOGIN", attributes, _PASSWORD)))
    match _sqlstate(error):
        # Postgres does not say which of the two it is.
        case "28P01":
            return f"{create_role};\n-- or, if it exists: ALTER ROLE {role} {_PASSWORD};"
        case "28000":
            return f"ALTER ROLE {role} LOGIN;\n-- or, if it does not exist: {create_role};"
        case "3D000":
            owner = ("CREATE DATABASE", database, "OWNER", role, "TEMPLATE template0", options)
            create = " ".join(filter(None, owner))
            return f"{create};\n-- without a superuser first: GRANT {role} TO CURRENT_USER;"
        case "42501":
            return f"GRANT CONNECT ON DATABASE {database} TO {role};"
    return None


def _sqlstate(error: BaseException | None) -> str | None:
    """The SQLSTATE of the refusal that caused *error*."""
    while error is not None:
        if isinstance(code := getattr(error, "sqlstate", None), str):
            return code
        error = error.__cause__
    return None
