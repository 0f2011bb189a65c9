"""A composer to be killed: `python -m tests.integration.report_process DATABASE NOW`. It stops between composing and keeping, and waits."""

import sys
import threading
from datetime import datetime
from typing import Any

from keeper import report as verb
from keeper.postgres import reports
from keeper.postgres.engine import open_engine
from keeper.report import ReportSettings


def main(database: str, now: datetime) -> None:
    """Compose, and keep nothing."""

    def stop(*_: Any, **__: Any) -> None:
        print("composed", flush=True)
        threading.Event().wait()

    setattr(reports, "insert_reports", stop)  # noqa: B010  the function's own type is not to the point
    verb.report(open_engine(database), now=now, settings=ReportSettings())


if __name__ == "__main__":
    main(sys.argv[1], datetime.fromisoformat(sys.argv[2]))
