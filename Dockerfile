# One image for `tollkeeper gate` and `tollkeeper admin`.
FROM python:3.13-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/opt/tollkeeper

COPY requirements.lock /opt/tollkeeper/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /opt/tollkeeper/requirements.lock

COPY protos /opt/tollkeeper/protos
COPY runtime /opt/tollkeeper/runtime
COPY catalog /opt/tollkeeper/catalog
COPY ratelimit /opt/tollkeeper/ratelimit
COPY extauth /opt/tollkeeper/extauth
COPY publisher /opt/tollkeeper/publisher
COPY admin /opt/tollkeeper/admin
COPY tollkeeper /opt/tollkeeper/tollkeeper

RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin tollkeeper
USER 10001

ENTRYPOINT ["python", "-P", "-m", "tollkeeper"]
CMD ["--help"]
