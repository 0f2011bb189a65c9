"""Run a flow in a process of its own, as a worker would: `python -m tests.services.run_flow flows.delivery.delivery '{}'`.

The last line on standard output is a JSON object: the run's id, the type, name and message of its last state.
"""

import json
import sys
from importlib import import_module

from prefect.client.schemas.objects import State
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings


def main() -> None:
    """Run it."""
    module, name = sys.argv[1].rsplit(".", 1)
    flow = getattr(import_module(module), name)
    with temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = run_flow(flow, parameters=json.loads(sys.argv[2]), return_type="state")
    assert isinstance(state, State)
    details = state.state_details
    print(json.dumps({"id": str(details.flow_run_id), "type": state.type.value, "name": state.name, "message": state.message or ""}))


if __name__ == "__main__":
    main()
