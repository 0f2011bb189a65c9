"""The Chromium of this machine, for pages that people look at. Debian's package `chromium`; nothing is downloaded."""

import shutil
from pathlib import Path

from tests.services.java import Say

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str | None:
    """What must be installed first; None where it is there."""
    return None if any(shutil.which(name) for name in _NAMES) else "Chromium (Debian: apt-get install chromium)"


def find(_say: Say = print) -> Path:
    """Its program.

    Raises:
        FileNotFoundError: there is none.
    """
    for name in _NAMES:
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise FileNotFoundError(missing())
