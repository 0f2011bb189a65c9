#!/bin/bash
# As the official image does it: KAFKA_NODE_ID is node.id; two underscores are a dash, three an underscore.
set -euo pipefail
properties=/opt/kafka/config/server.properties
env | grep '^KAFKA_' | grep -vE '^KAFKA_(HEAP_OPTS|OPTS|VERSION|JVM_PERFORMANCE_OPTS)=' | while IFS='=' read -r name value; do
    name=$(tr '[:upper:]' '[:lower:]' <<< "${name#KAFKA_}" | sed -e 's/___/\x01/g' -e 's/__/\x02/g' -e 's/_/./g' -e 's/\x01/_/g' -e 's/\x02/-/g')
    echo "$name=$value"
done > "$properties"
java=(java -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.log.kafka.server=info -cp '/opt/kafka/libs/*')
# shellcheck disable=SC2086  several options in one variable, as Kafka's own scripts have it
"${java[@]}" -Xmx128m kafka.tools.StorageTool format --ignore-formatted --cluster-id "$CLUSTER_ID" --config "$properties"
exec "${java[@]}" ${KAFKA_HEAP_OPTS:--Xmx512m} kafka.Kafka "$properties"
