# LOCAL TEST STAND-IN ONLY for python:3.12-slim: this machine's Python 3.12 on its own Debian. The CA bundle of this machine comes with the
# build's context; nothing of it is kept in a file of the checkout.
ARG DEBIAN
FROM ${DEBIAN}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 libffi8 libsqlite3-0 zlib1g libbz2-1.0 liblzma5 libreadline8 libncursesw6 libexpat1 libuuid1 tzdata \
 && rm -rf /var/lib/apt/lists/*
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY python /usr/local
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
RUN ldconfig && ln -sf python3.12 /usr/local/bin/python && ln -sf python3.12 /usr/local/bin/python3 && python -m ensurepip && python -m pip --version
