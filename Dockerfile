# One image for every `tollkeeper` command but `up`, which brings a Valkey and an Envoy of its own to one machine.
#
#   docker build -t tollkeeper .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL -v sockets:/run/tollkeeper -v ./secrets.json:/etc/tollkeeper/secrets.json:ro \
#     -e TOLLKEEPER_SECRETS_FILE=/etc/tollkeeper/secrets.json tollkeeper gate
#
# Writes nothing but sockets into /run/tollkeeper, and what settings name. The secrets file belongs to uid 10001, mode 0600.

# Version and digest; look the digest up anew whenever you change the version.
ARG BASE=python:3.13.9-slim-bookworm@sha256:b685a4fa58bb19d1814d78a1ec0f0208f351452724f78b20212c984d6e124a34

# 0 makes an image without machine code of ours: the same sources, all of them Python (docs/decisions/0044-compiled-modules.md).
ARG COMPILED=1

# hadolint ignore=DL3006
FROM ${BASE} AS compiler
ARG COMPILED
# hadolint ignore=DL3008
RUN [ "$COMPILED" != 1 ] || { apt-get update -qq && apt-get install -qq -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; }

FROM compiler AS build
ARG COMPILED
WORKDIR /build
COPY requirements-image.lock ./
RUN python -m venv /opt/tollkeeper && \
    /opt/tollkeeper/bin/python -m pip install --no-cache-dir --disable-pip-version-check --quiet \
        --require-hashes --only-binary :all: -r requirements-image.lock
COPY protos packages/protos
COPY runtime packages/runtime
COPY catalog packages/catalog
COPY ratelimit packages/ratelimit
COPY extauth packages/extauth
COPY gate packages/gate
COPY publisher packages/publisher
COPY admin packages/admin
COPY tollkeeper packages/tollkeeper
COPY pyproject.toml hatch_build.py requirements-build.lock tools/
RUN [ "$COMPILED" != 1 ] || { \
        python -m venv tools/python && \
        tools/python/bin/python -m pip install --no-cache-dir --disable-pip-version-check --quiet \
            --require-hashes --only-binary :all: -r tools/requirements-build.lock && \
        cp -R packages/. tools && tools/python/bin/python tools/hatch_build.py beside packages; }
COPY LICENSE packages/tollkeeper/LICENSE
# hadolint ignore=SC2016
RUN packages="$(/opt/tollkeeper/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" && \
    cp -R packages/. "$packages" && \
    printf '#!/bin/sh\nexec "${0%%/*}/python" -P -m tollkeeper "$@"\n' > /opt/tollkeeper/bin/tollkeeper && \
    chmod 0755 /opt/tollkeeper/bin/tollkeeper && \
    /opt/tollkeeper/bin/python -m pip uninstall --quiet --yes setuptools pip && \
    /opt/tollkeeper/bin/python -m compileall -q --invalidation-mode unchecked-hash "$packages"

# hadolint ignore=DL3006
FROM ${BASE}
LABEL org.opencontainers.image.title="Tollkeeper" \
      org.opencontainers.image.description="An API-key gateway for AI/ML models on Envoy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/tollkeeper/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tollkeeper && \
    install --directory --owner tollkeeper --group tollkeeper --mode 0755 /run/tollkeeper
COPY --from=build /opt/tollkeeper /opt/tollkeeper
VOLUME ["/run/tollkeeper"]
USER 10001:10001
STOPSIGNAL SIGTERM
# Alive, not ready: a store that is away is no reason to restart a gate. An admin's container sets TOLLKEEPER_PROBE_AT.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["tollkeeper", "probe"]
ENTRYPOINT ["tollkeeper"]
CMD ["--help"]
