# The first stage installs, the second one contains only the result, without build tools. `--target node`
# adds PgBouncer: an image for nodes.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/poolkeeper
# Dependencies change less often than the code, so their layer is cached.
COPY requirements.lock ./
RUN /opt/poolkeeper/bin/pip install --no-deps --require-hashes --requirement requirements.lock
COPY LICENSE README.md pyproject.toml ./
COPY alembic alembic
COPY app app
COPY poolkeeper poolkeeper
RUN /opt/poolkeeper/bin/pip install --no-deps --no-index --no-build-isolation .

FROM python:3.13-slim AS service
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/poolkeeper \
    --shell /usr/sbin/nologin poolkeeper
COPY --from=build /opt/poolkeeper /opt/poolkeeper
ENV PATH=/opt/poolkeeper/bin:$PATH \
    POOLKEEPER_DATA_DIR=/var/lib/poolkeeper \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/poolkeeper
# By number, so that an orchestrator can verify that it is not root.
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('POOLKEEPER_PORT', '8080') + '/livez', timeout=2)"]
ENTRYPOINT ["poolkeeper"]
CMD ["serve"]

FROM service AS node
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends pgbouncer \
    && rm -rf /var/lib/apt/lists/*
USER 10001
HEALTHCHECK NONE
CMD ["node", "--help"]

FROM service
