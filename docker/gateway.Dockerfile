# The gateway: searches at Triton and in FAISS, logs what users do.
# syntax is plain: any builder that mounts secrets and stages (BuildKit, buildah) takes it.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm

# The secret `ca` is a bundle of certificates, for builds behind a proxy that has one of its own. Nothing of it stays.
FROM ${BASE_IMAGE} AS tools
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi; \
    python3 -m venv /opt/build && /opt/build/bin/pip install --quiet --no-cache-dir --disable-pip-version-check uv==0.13.9

FROM tools AS wheel
ARG FIND_LINKS=
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY crops crops
COPY components components
COPY pipelines pipelines
COPY serving serving
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    UV_FIND_LINKS="$FIND_LINKS" UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never /opt/build/bin/uv build --quiet --wheel --out-dir /opt/wheel .

FROM scratch AS lock
COPY locks/gateway.txt /lock.txt

FROM ${BASE_IMAGE}
# FIND_LINKS: a page or folder with wheels beside the index, for instance torch's builds for the CPU.
ARG FIND_LINKS=
# Installed where it stays, with tools that are only mounted: nothing is copied, and our own code is a small layer after a large one
# that changes with the lock alone.
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    --mount=type=bind,from=tools,source=/opt/build,target=/run/tools \
    --mount=type=bind,from=lock,target=/run/locked \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    export UV_FIND_LINKS="$FIND_LINKS" UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never; \
    python3 -m venv --without-pip /opt/crops \
    && /run/tools/bin/uv pip install --quiet --compile-bytecode --verify-hashes \
       --python /opt/crops/bin/python -r /run/locked/lock.txt
RUN --mount=type=bind,from=tools,source=/opt/build,target=/run/tools \
    --mount=type=bind,from=wheel,source=/opt/wheel,target=/run/wheel \
    UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never \
    /run/tools/bin/uv pip install --quiet --compile-bytecode --no-deps --python /opt/crops/bin/python /run/wheel/*.whl
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="crops-gateway" \
      org.opencontainers.image.description="CroPS: search gateway" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/crops/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN mkdir -p /var/lib/crops && chown 10001:10001 /var/lib/crops
WORKDIR /var/lib/crops
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["python3", "-m", "serving.gateway"]
CMD ["/etc/crops/gateway.json"]
