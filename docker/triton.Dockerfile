# Triton from the nvidia-pytriton wheel, on the CPU, following the release manifest.
# syntax is plain: any builder that knows secret mounts (BuildKit, buildah) takes it.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm

FROM ${BASE_IMAGE} AS build
# FIND_LINKS: a page or folder with wheels beside the index, for instance torch's builds for the CPU.
ARG FIND_LINKS=
# The secret `ca` is a bundle of certificates, for builds behind a proxy that has one of its own. Nothing of it stays.
WORKDIR /src
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi; \
    python3 -m venv /opt/build && /opt/build/bin/pip install --quiet --no-cache-dir --disable-pip-version-check uv==0.13.9
COPY locks/follow.txt locks/follow.txt
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    export UV_FIND_LINKS="$FIND_LINKS" UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never; \
    python3 -m venv --without-pip /opt/crops \
    && /opt/build/bin/uv pip install --quiet --compile-bytecode --verify-hashes --python /opt/crops/bin/python -r locks/follow.txt
COPY pyproject.toml README.md LICENSE ./
COPY crops crops
COPY serving serving
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    export UV_FIND_LINKS="$FIND_LINKS" UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never; \
    /opt/build/bin/uv pip install --quiet --compile-bytecode --no-deps --python /opt/crops/bin/python .
# The server's own environment: its wheel wants numpy < 2.
COPY locks/triton.txt locks/triton.txt
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    export UV_FIND_LINKS="$FIND_LINKS" UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never; \
    python3 -m venv --without-pip /opt/triton \
    && /opt/build/bin/uv pip install --quiet --compile-bytecode --no-deps --python /opt/triton/bin/python -r locks/triton.txt

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="crops-triton" \
      org.opencontainers.image.description="CroPS: query encoders at Triton, CPU" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/crops /opt/crops
COPY --from=build /opt/triton /opt/triton
ENV PATH=/opt/crops/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN mkdir -p /var/lib/crops && chown 10001:10001 /var/lib/crops
WORKDIR /var/lib/crops
USER 10001:10001
EXPOSE 8000 8001 8002 8003
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8003/healthz', timeout=3)"]
ENTRYPOINT ["python3", "-m", "serving.triton.follow"]
CMD ["/etc/crops/triton.json"]
