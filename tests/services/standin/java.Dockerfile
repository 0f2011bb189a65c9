# LOCAL TEST STAND-IN ONLY: this machine's JDK on its own Debian, for Kafka and Elasticsearch.
ARG DEBIAN
FROM ${DEBIAN}
COPY jdk /opt/java
ENV JAVA_HOME=/opt/java PATH=/opt/java/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN useradd --uid 1000 --create-home appuser && java -version
