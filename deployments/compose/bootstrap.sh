#!/bin/sh
# Run once at every `docker compose up`, and again whenever one likes: tables, work pools, limits, topics, indices, deployments.
set -eu
keeper migrate
python -m deployments.bootstrap
prefect --no-prompt deploy --all
