"""The jobs: order, fan-out, when to stop, what the Prefect UI shows."""

from flows.logs import follow_run

follow_run()
