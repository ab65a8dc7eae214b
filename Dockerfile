# The runtime of enclap with its bundled model: no PyTorch, no compiler, a user without rights.
#   docker build -t enclap .
#   docker run --rm -v "$PWD:/data:ro" enclap caption /data
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
RUN python -m venv /opt/enclap \
    && /opt/enclap/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt . \
    && /opt/enclap/bin/python -m compileall -q /opt/enclap/lib \
    && /opt/enclap/bin/pip uninstall --yes --quiet pip

FROM python:${PYTHON}-slim
COPY --from=build /opt/enclap /opt/enclap
ENV PATH=/opt/enclap/bin:$PATH \
    HF_HOME=/var/cache/enclap
RUN useradd --create-home --uid 10001 enclap \
    && install --directory --owner=enclap --group=enclap /data /var/cache/enclap
USER 10001
WORKDIR /data
ENTRYPOINT ["enclap"]
CMD ["--help"]
