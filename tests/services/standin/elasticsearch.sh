#!/bin/bash
# What bin/elasticsearch does, which is missing in this copy.
set -euo pipefail
home=/usr/share/elasticsearch config=/usr/share/elasticsearch/run
{
    echo "path.data: $home/data"
    echo "path.logs: $home/logs"
    echo 'network.host: 0.0.0.0'
    env | grep -E '^[a-z_]+\.[a-z_.]+=' | sed 's/=/: /'
} > "$config/elasticsearch.yml"
printf '%s\n' 'status = error' 'appender.console.type = Console' 'appender.console.name = console' 'appender.console.layout.type = PatternLayout' \
    'appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n' 'rootLogger.level = info' 'rootLogger.appenderRef.console.ref = console' \
    > "$config/log4j2.properties"
printf '%s\n' -XX:+UseSerialGC -XX:-UsePerfData -XX:+ExitOnOutOfMemoryError ${ES_JAVA_OPTS:-} > "$config/jvm.options"
export ES_HOME=$home ES_PATH_CONF=$config ES_TMPDIR=/tmp ES_JAVA_HOME=$JAVA_HOME JAVA=$JAVA_HOME/bin/java JAVA_TYPE=ES_JAVA_HOME
export ES_DISTRIBUTION_TYPE=docker CLI_JAVA_OPTS=-Xmx64m
exec "$JAVA" -Xmx64m -XX:+UseSerialGC -cp "$home/lib/tools/server-launcher/*" org.elasticsearch.server.launcher.ServerLauncher
