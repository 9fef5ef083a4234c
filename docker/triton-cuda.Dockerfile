# NVIDIA's Triton (tritonserver:25.08-py3, Python 3.12) with ONNX Runtime for CUDA, following the release manifest.
# BASE_IMAGE has no default: the image lies in NVIDIA's own catalogue, under its terms.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi; \
    python3 -m venv /opt/build && /opt/build/bin/pip install --quiet --no-cache-dir --disable-pip-version-check uv==0.13.9
COPY locks/triton-cuda.txt locks/triton-cuda.txt
# Beside the server's own packages, not among them: the backend's Python finds them by PYTHONPATH.
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    UV_NO_CACHE=1 UV_LINK_MODE=copy /opt/build/bin/uv pip install --quiet --compile-bytecode --verify-hashes \
      --target /opt/crops -r locks/triton-cuda.txt
COPY crops /opt/crops/crops
COPY serving /opt/crops/serving

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="crops-triton-cuda" \
      org.opencontainers.image.description="CroPS: query encoders at Triton, GPU" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/crops /opt/crops
ENV PYTHONPATH=/opt/crops PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN mkdir -p /var/lib/crops && chown 10001:10001 /var/lib/crops
WORKDIR /var/lib/crops
USER 10001:10001
EXPOSE 8000 8001 8002 8003
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8003/healthz', timeout=3)"]
ENTRYPOINT ["python3", "-m", "serving.triton.follow"]
CMD ["/etc/crops/triton.json"]
