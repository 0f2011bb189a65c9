"""The jobs: order, fan-out, when to stop, what the Prefect UI shows."""
