#!/bin/bash
# Run once, by the image of PostgreSQL, when its volume is new: two databases, each with an account that owns nothing else.
set -euo pipefail
for name in keeper prefect; do
    test -s "/run/secrets/${name}_password"
    # psql reads the password itself: a command line can be read by everybody on the machine.
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set name="$name" <<'SQL'
\set file /run/secrets/ :name _password
\set password `cat :'file'`
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
