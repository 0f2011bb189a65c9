# LOCAL TEST STAND-IN ONLY for elasticsearch: the distribution inside SonarQube's archive on Maven Central (Elastic License 2.0, test use only).
# Variables with a dot in their names become settings, as in the official image.
ARG JAVA
FROM ${JAVA}
RUN apt-get update && apt-get install --yes --no-install-recommends curl && rm -rf /var/lib/apt/lists/*
COPY elasticsearch /usr/share/elasticsearch
COPY elasticsearch.sh /usr/local/bin/docker-entrypoint.sh
RUN usermod --login elasticsearch appuser && mkdir -p /usr/share/elasticsearch/data /usr/share/elasticsearch/logs /usr/share/elasticsearch/run \
 && chmod 755 /usr/local/bin/docker-entrypoint.sh && chown -R elasticsearch /usr/share/elasticsearch/data /usr/share/elasticsearch/logs /usr/share/elasticsearch/run
USER elasticsearch
WORKDIR /usr/share/elasticsearch
VOLUME /usr/share/elasticsearch/data
EXPOSE 9200 9300
ENTRYPOINT ["docker-entrypoint.sh"]
