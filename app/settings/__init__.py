"""Every knob of the service, with its unit, its default and the reason for it.

Read once, at the door: only `main` and `cli` may import this, and they pass values on.
"""

from app.settings.endpoint import CatalogSettings, Endpoint, ServerSettings
from app.settings.errors import SettingsError
from app.settings.loading import load_settings
from app.settings.settings import EMBEDDED_SERVER, Settings

__all__ = [
    "EMBEDDED_SERVER",
    "CatalogSettings",
    "Endpoint",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "load_settings",
]
