#!/bin/bash
# Run once, by the image of PostgreSQL, when its volume is new: two databases, each with an account that owns nothing else.
set -euo pipefail
for name in keeper prefect; do
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
        --set name="$name" --set password="$(cat "/run/secrets/${name}_password")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
