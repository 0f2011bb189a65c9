#!/bin/bash
# The part of the official image's entry script that compose.yaml uses: POSTGRES_PASSWORD_FILE, /docker-entrypoint-initdb.d, an account of its own.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres /var/lib/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 \
        --locale-provider=builtin --locale=C.UTF-8 > /dev/null
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses='' -c unix_socket_directories=/tmp" start > /dev/null
    for file in /docker-entrypoint-initdb.d/*.sh; do
        PGHOST=/tmp POSTGRES_USER=postgres POSTGRES_DB=postgres bash "$file"
    done
    pg_ctl --wait --mode=fast stop > /dev/null
fi
exec "$@" -c listen_addresses='*' -c unix_socket_directories=/tmp
