# The sidecar. Build: docker build -t otel-scorer .
# Mount a configuration over /etc/otel-scorer/otel-scorer.yaml, and scorers wherever it looks for them.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The environment has no pip of its own; it moves to the second stage as it is.
RUN python -m venv --without-pip /opt/otel-scorer
COPY requirements/image.txt requirements/
RUN pip --python /opt/otel-scorer/bin/python install --require-hashes -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY otel_scorer otel_scorer
RUN pip --python /opt/otel-scorer/bin/python install --no-deps --no-build-isolation .

FROM python:${PYTHON_VERSION}-slim
# The user has a number because Kubernetes can only check numbers for runAsNonRoot.
RUN groupadd --gid 10001 otel-scorer \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/otel-scorer --create-home --shell /usr/sbin/nologin otel-scorer
COPY --from=build /opt/otel-scorer /opt/otel-scorer
COPY config/otel-scorer.yaml /etc/otel-scorer/otel-scorer.yaml
ENV PATH=/opt/otel-scorer/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/otel-scorer

# OTLP over gRPC and over HTTP.
EXPOSE 4317 4318
# The exec form makes Python process 1, so that SIGTERM reaches it and open traces are scored and sent before the end.
STOPSIGNAL SIGTERM
# telemetry.status_page serves /readyz on the loopback address. The opener ignores proxy settings of the environment.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:13133/readyz', timeout=2)"]
ENTRYPOINT ["otel-scorer"]
CMD ["serve", "-c", "/etc/otel-scorer/otel-scorer.yaml", "--grpc", "0.0.0.0:4317", "--http", "0.0.0.0:4318"]
