# Images with bench and Ray, for one machine, Slurm (Apptainer) and Kubernetes.
#
#     docker build --target cpu --tag bench:cpu .
#     docker build --target cuda --tag bench:cuda .
#     docker run --rm --volume "$PWD/work:/work" bench:cpu
#
# Without further words a container evaluates the embedded suite; results and pages are written to /work.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS base
# PyTorch's compiler, which long runs use, needs g++; the health checks of KubeRay need wget.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ wget \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 bench && install --directory --owner=bench /work
ENV PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0

FROM base AS cpu
RUN pip install --no-cache-dir "torch>=2.6" "torchvision>=0.21" --index-url https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[ray]"
USER 1000
WORKDIR /work
CMD ["bench", "run", "--suite", "digits-linf"]

FROM base AS cuda
# The wheels of the default index bring CUDA; the machine needs NVIDIA's driver and container toolkit.
RUN pip install --no-cache-dir "torch>=2.6" "torchvision>=0.21"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[ray]"
USER 1000
WORKDIR /work
CMD ["bench", "run", "--suite", "digits-linf"]
