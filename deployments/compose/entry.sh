#!/bin/sh
# The first process of every container of Keeper's image: passwords come as files named like their variable, profiles switch systems on.
set -eu

for file in /run/secrets/KEEPER_* /run/secrets/PREFECT_*; do
    # An empty file is a password nobody has set.
    if [ -s "$file" ]; then
        # Not in one line with export, which would hide that it cannot be read: the container would run without.
        value=$(cat "$file")
        export "$(basename "$file")=$value"
    fi
done

if [ -n "${KEEPER_PREFECT_API_AUTH:-}" ]; then
    # Prefect's server and its clients each have a name of their own for it.
    export PREFECT_SERVER_API_AUTH_STRING="$KEEPER_PREFECT_API_AUTH" PREFECT_API_AUTH_STRING="$KEEPER_PREFECT_API_AUTH"
fi

case ",${COMPOSE_PROFILES:-}," in
*,stream,*) export KEEPER_KAFKA_BOOTSTRAP_SERVERS="${KEEPER_KAFKA_BOOTSTRAP_SERVERS:-kafka:29092}" ;;
esac
case ",${COMPOSE_PROFILES:-}," in
*,search,*)
    export KEEPER_ELASTICSEARCH_URL="${KEEPER_ELASTICSEARCH_URL:-http://elasticsearch:9200}"
    # Set and empty means without Kibana.
    export KEEPER_KIBANA_URL="${KEEPER_KIBANA_URL-http://kibana:5601}"
    ;;
esac

exec "$@"
