# Two images from one file:
#
#   docker build --target leveret --tag leveret .           every process, and pools of your actors
#   docker build --target leveret-actors --tag leveret-actors .  pools that run the actors in the box
#
# Python packages come from the hashed locks; `docs/how-to/build-an-image.md` tells the rest.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# For `strip`, in this stage alone.
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends binutils >/dev/null \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/build.lock requirements/processes.lock requirements/
RUN python -m venv /build/tools \
    && /build/tools/bin/python -m pip install --quiet --require-hashes --requirement requirements/build.lock \
    && python -m venv --without-pip /opt/leveret \
    && /build/tools/bin/python -m pip --python /opt/leveret/bin/python install --quiet \
        --require-hashes --requirement requirements/processes.lock
COPY compose/image compose/image
RUN python compose/image/strip.py /opt/leveret
COPY pyproject.toml README.md LICENSE ./
COPY leveret leveret
RUN /build/tools/bin/python -m build --wheel --no-isolation --outdir dist . >/dev/null \
    && /build/tools/bin/python -m pip --python /opt/leveret/bin/python install --quiet \
        --no-deps --no-index dist/leveret-*.whl \
    && rm /opt/leveret/lib/python3*/site-packages/leveret-*.dist-info/direct_url.json
COPY actors /srv/leveret/actors
COPY services /srv/leveret/services
COPY scheduler /srv/leveret/scheduler
RUN mkdir /var/lib/leveret \
    && find /srv/leveret -name __pycache__ -prune -exec rm -rf {} + \
    && python compose/image/compile.py /opt/leveret /srv/leveret \
    && /opt/leveret/bin/python compose/image/sbom.py /opt/leveret/sbom.cdx.json

# What the actors in the box work with on top, laid over the environment of the other image.
FROM build AS build-actors
COPY requirements/services.lock requirements/
RUN cp -a /opt/leveret /build/before \
    && /build/tools/bin/python -m pip --python /opt/leveret/bin/python install --quiet \
        --require-hashes --requirement requirements/services.lock \
    && python compose/image/strip.py /opt/leveret \
    && python compose/image/compile.py /opt/leveret \
    && /opt/leveret/bin/python compose/image/sbom.py /opt/leveret/sbom.cdx.json \
    && python compose/image/keep_new.py /build/before /opt/leveret

FROM python:3.11-slim AS leveret
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="leveret" \
    org.opencontainers.image.description="Background jobs on RabbitMQ that lose nothing" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="python:3.11-slim"
COPY --from=build /opt/leveret /opt/leveret
COPY --from=build /srv/leveret /srv/leveret
# Where a volume for the actors' files is mounted.
COPY --from=build --chown=10001:10001 /var/lib/leveret /var/lib/leveret
# Nothing is imported from the directory that a container happens to start in, and nothing is
# written: the modules are compiled.
ENV PATH=/opt/leveret/bin:${PATH} \
    PYTHONPATH=/srv/leveret \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LEVERET_HTTP_HOST=0.0.0.0 \
    LEVERET_HTTP_PORT=8000 \
    LEVERET_LOG_FORMAT=json
WORKDIR /srv/leveret
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m"]
CMD ["services.worker"]

FROM leveret AS leveret-actors
LABEL org.opencontainers.image.title="leveret-actors"
COPY --from=build-actors /opt/leveret /opt/leveret
