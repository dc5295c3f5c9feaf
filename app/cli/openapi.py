"""`poolkeeper openapi`: prints the OpenAPI document."""

import json
import sys

from app.api.openapi import document
from app.main import create_app
from app.settings import Settings


def openapi() -> None:
    app = create_app(Settings.model_construct())
    text = json.dumps(document(app), indent=2, ensure_ascii=False) + "\n"
    sys.stdout.buffer.write(text.encode())  # UTF-8 in every locale
