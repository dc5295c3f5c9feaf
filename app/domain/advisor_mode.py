"""What becomes of the advisor's advice: for the whole service, or for one tenant's pool."""

from __future__ import annotations

from enum import StrEnum


class AdvisorMode(StrEnum):
    """How recommendations are handled."""

    OFF = "off"
    RECOMMEND = "recommend"
    APPLY = "apply"
