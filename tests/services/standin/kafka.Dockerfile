# LOCAL TEST STAND-IN ONLY for apache/kafka: the same jars from Maven Central, KAFKA_* variables become server.properties as in the official
# image, and the tools of /opt/kafka/bin that README names.
ARG JAVA
FROM ${JAVA}
COPY jars /opt/kafka/libs
COPY kafka.sh /opt/kafka/entry.sh
RUN mkdir -p /opt/kafka/bin /opt/kafka/config /var/lib/kafka/data \
 && for pair in kafka-topics:TopicCommand kafka-get-offsets:GetOffsetShell kafka-consumer-groups:consumer.group.ConsumerGroupCommand; do \
      printf '#!/bin/bash\nexec java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "/opt/kafka/libs/*" org.apache.kafka.tools.%s "$@"\n' "${pair#*:}" > "/opt/kafka/bin/${pair%%:*}.sh"; \
    done \
 && chmod 755 /opt/kafka/bin/*.sh /opt/kafka/entry.sh && chown -R appuser /opt/kafka/config /var/lib/kafka
USER appuser
VOLUME /var/lib/kafka/data
EXPOSE 9092
CMD ["/opt/kafka/entry.sh"]
