"""Elasticsearch: index templates, aliases over versioned indices, writing and reading documents."""

import sys


def _load_client() -> None:
    """Load Elasticsearch's client without pyarrow, which it takes wherever it is installed (here for the dashboard).

    That costs a fifth of a second and 27 MB in each process, for a format that Keeper does not send.
    """
    if "pyarrow" in sys.modules:
        return
    # Its import fails, which the client takes for "not installed".
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    try:
        import elasticsearch  # noqa: F401
    finally:
        del sys.modules["pyarrow"]


_load_client()
