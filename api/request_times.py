"""How long answers take, for Prometheus: by route, never by path, so that neither a product nor a key is ever a label."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.process_collector import ProcessCollector
from starlette.types import Scope

from keeper.exporter import serve_registry
from keeper.settings import MetricsSettings

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BOUNDS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_NO_ROUTE: Final = "none"
_VERSION: Final = "/api/v1"


class RequestTimes:
    """The times of this process. Safe to share between threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._seconds = Histogram(
            "api_request_duration_seconds",
            "From a request's head to the end of its answer, by route and class of status.",
            ("method", "route", "status"),
            buckets=_BOUNDS_SECONDS,
            registry=self.registry,
        )

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """After the answer, when the router has left its route in the scope; a request that no route took has none."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._seconds.labels(method, _template(scope), f"{status // 100}xx").observe(seconds)

    @contextmanager
    def served(self, settings: MetricsSettings) -> Iterator[int | None]:
        """Serve them where a port is set. Yields the one that was bound.

        Raises:
            PortTaken: see there.
        """
        wanted = settings.api_port
        with nullcontext() if wanted is None else serve_registry(self.registry, host=settings.host, port=wanted) as port:
            yield port


def _template(scope: Scope) -> str:
    """The route's path with names where the request's has values."""
    template: str = getattr(scope.get("route"), "path_format", _NO_ROUTE)
    # FastAPI 0.150 says what a router was given and not where it was included, older ones say both.
    is_below = scope["path"].startswith(f"{_VERSION}/") and template != _NO_ROUTE and not template.startswith(_VERSION)
    return _VERSION + template if is_below else template
