"""Whether an agent and the service are of versions that are tested together."""

import re

# An agent may send any text; what is shown of it is short and printable.
_release = re.compile(r"(\d{1,4})\.(\d{1,4})(?!\d)[\w.+-]{0,100}", re.ASCII).fullmatch


def version_warning(agent: str, service: str) -> str | None:
    """What to upgrade if two versions differ by more than fixes; None if they fit."""
    of_agent, of_service = _minor(agent), _minor(service)
    if of_agent is None or of_service is None or of_agent == of_service:
        return None
    older = "agent" if of_agent < of_service else "service"
    return (
        f"Its agent is version {agent}, and the service is version {service}: they are tested in"
        f" the same version only. Upgrade the {older}."
    )


def _minor(version: str) -> tuple[int, int] | None:
    found = _release(version)
    return None if found is None else (int(found[1]), int(found[2]))
