"""`python -m api`: serve the REST API."""

import logging
import sys

import uvicorn

from api.access import is_loopback
from api.app import create_app
from api.edge import MaskKeys
from api.serving import serving_options
from keeper.domain.errors import KeeperError
from keeper.settings import SettingsInvalid, read_settings


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
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(MaskKeys())
    uvicorn.run(
        app,
        host=settings.api.host,
        port=settings.api.port,
        log_level=settings.log_level.lower(),
        **options,
    )


if __name__ == "__main__":
    main()
