"""`python -m api`: serve the REST API."""

import logging
import sys

import uvicorn

from api.access import is_loopback
from api.app import create_app
from api.edge import MaskKeys
from api.serving import serving_options
from keeper.accounts import mask_keys
from keeper.domain.errors import KeeperError
from keeper.logs import Redaction, set_up
from keeper.settings import SettingsInvalid, list_secrets, read_settings


def main() -> None:
    """Serve until SIGTERM; what is under way is finished first."""
    try:
        settings = read_settings()
        if settings.api.auth == "off" and not is_loopback(settings.api.host):
            raise SettingsInvalid(
                f"KEEPER_API_AUTH=off would let everybody in who reaches {settings.api.host}: set it to on, or listen on 127.0.0.1"
            )
        options = serving_options(settings.api)
        app = create_app(settings)
    except KeeperError as error:
        sys.exit(f"api: {error}")
    set_up(level=settings.log_level, form=settings.log_format, redact=Redaction(list_secrets(settings), mask_keys))
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(MaskKeys())
    uvicorn.run(
        app,
        host=settings.api.host,
        port=settings.api.port,
        log_level=settings.log_level.lower(),
        # Its lines are written as all others.
        log_config=None,
        **options,
    )


if __name__ == "__main__":
    main()
