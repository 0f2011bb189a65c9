#!/bin/sh
# Makes the passwords of compose.yaml, each in a file of its own: sh deployments/compose/secrets.sh [FOLDER], else that of $SECRETS.
# What is there already stays. The files are readable for the accounts inside the containers; their folder is for you alone.
set -eu
folder=${1:-${SECRETS:-.keeper/secrets}}
mkdir -p "$folder"
chmod 700 "$folder"

make() { # file, content
    if [ ! -e "$folder/$1" ]; then
        (umask 022 && printf '%s' "$2" > "$folder/$1")
        echo "made $folder/$1"
    fi
}
random() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

make postgres_password "$(random)"
make keeper_password "$(random)"
make prefect_password "$(random)"
make grafana_password "$(random)"
make KEEPER_DATABASE_URL "postgresql://keeper:$(cat "$folder/keeper_password")@db:5432/keeper"
make PREFECT_SERVER_DATABASE_CONNECTION_URL "postgresql+asyncpg://prefect:$(cat "$folder/prefect_password")@db:5432/prefect"
make KEEPER_PREFECT_API_AUTH "keeper:$(random)"
# Keep a copy of this one: without it nobody can read where alerts go.
make KEEPER_CHANNELS_KEYS "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n')"
# Write the key of your Keepa subscription into it; empty, the simulator stands in.
make KEEPER_KEEPA_API_KEY ""
# Likewise empty until you write yours into it: addresses with a password in them, and what Kafka and Elasticsearch may ask for.
make KEEPER_PREFECT_WEBHOOK_URL ""
make KEEPER_WATCHDOG_APPRISE_URLS ""
make KEEPER_WATCHDOG_HEARTBEAT_URL ""
make KEEPER_KAFKA_SASL_PASSWORD ""
make KEEPER_ELASTICSEARCH_API_KEY ""
make KEEPER_ELASTICSEARCH_PASSWORD ""

closed=$(find "$folder" -type f ! -perm -004)
if [ -n "$closed" ]; then
    echo "the accounts inside the containers cannot read these, and no container that needs one will start: chmod 644" $closed >&2
    exit 1
fi
