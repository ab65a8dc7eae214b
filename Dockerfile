# Two images of enclap with its bundled model: no PyTorch, no compiler, a user without rights, nothing fetched when run.
#   docker build -t enclap .                               the command line (the last stage)
#   docker run --rm -v "$PWD:/data:ro" enclap caption /data
#   docker build -t enclap-serve --target serve .          HTTP, the page and the tools for agents; see compose.yaml
ARG PYTHON=3.13
ARG BASE=python:${PYTHON}-slim

FROM ${BASE} AS source
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
COPY recipes recipes
COPY examples examples
RUN python3 -m venv /opt/enclap

FROM source AS build
RUN /opt/enclap/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --constraint constraints.txt . \
    && /opt/enclap/bin/pip uninstall --yes --quiet pip \
    && /opt/enclap/bin/python -m compileall -q /opt/enclap/lib

FROM source AS build-serve
RUN /opt/enclap/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --constraint constraints.txt '.[serve]' \
    && /opt/enclap/bin/pip uninstall --yes --quiet pip \
    && /opt/enclap/bin/python -m compileall -q /opt/enclap/lib

FROM ${BASE} AS user
ENV PATH=/opt/enclap/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --uid 10001 enclap \
    && install --directory --owner=enclap --group=enclap /data /var/cache/enclap /var/lib/enclap

# Uploads are spooled in the volume, not in memory; the root file system may be read-only.
FROM user AS serve
COPY --from=build-serve /opt/enclap /opt/enclap
ENV TMPDIR=/var/lib/enclap \
    HF_HUB_OFFLINE=1
USER 10001
WORKDIR /var/lib/enclap
VOLUME /var/lib/enclap
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
ENTRYPOINT ["enclap", "serve", "--host", "0.0.0.0", "--state-dir", "/var/lib/enclap/jobs"]

FROM user
COPY --from=build /opt/enclap /opt/enclap
ENV HF_HOME=/var/cache/enclap
USER 10001
WORKDIR /data
ENTRYPOINT ["enclap"]
CMD ["--help"]
