"""Every setting of the service, with unit, default and reason.

Read once at start: only `main`, `cli` and `runtime.topology` may import this; they pass values on.
"""

from app.settings.endpoint import CatalogSettings, Endpoint, ServerSettings
from app.settings.errors import SettingsError
from app.settings.loading import configured_log_format, load_settings
from app.settings.settings import EMBEDDED_SERVER, Settings

__all__ = [
    "EMBEDDED_SERVER",
    "CatalogSettings",
    "Endpoint",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "configured_log_format",
    "load_settings",
]
