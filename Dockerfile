# podstrap's images.
#
#   docker build --target scratch -t podstrap .            the static binary and nothing else
#   docker build --target python -t podstrap:python3.13 .  with Python and uv: an init container
#
# BASE is the Python image of the init container. Its libc and Python version must be those of the
# image that runs the app.
ARG RUST=rust:1.95-slim-bookworm
ARG BASE=python:3.13-slim-bookworm

FROM ${RUST} AS build
WORKDIR /src
# The dependencies are built apart: they change less often than the sources.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && cargo build --release --locked \
 && rm -rf src
COPY src src
COPY examples examples
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked \
 && cp target/*-linux-*/release/podstrap /podstrap

FROM scratch AS scratch
LABEL org.opencontainers.image.title="podstrap" \
      org.opencontainers.image.description="Boot interpreted apps in Pods" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /podstrap /podstrap
USER 65532:65532
ENTRYPOINT ["/podstrap"]

# The musllinux wheel's uv is static, so --copy-self may take it to any image.
FROM ${BASE} AS uv
ARG UV=0.13.9
RUN pip download --no-cache-dir --no-deps --only-binary=:all: --platform "musllinux_1_1_$(uname -m)" -d /tmp/uv "uv==${UV}" \
 && python3 -m zipfile -e /tmp/uv/*.whl /tmp/uv/wheel \
 && install -m 755 /tmp/uv/wheel/uv-*.data/scripts/uv /uv

FROM ${BASE} AS python
LABEL org.opencontainers.image.title="podstrap" \
      org.opencontainers.image.description="Boot interpreted apps in Pods: with Python and uv" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /podstrap /usr/local/bin/podstrap
COPY --from=uv /uv /usr/local/bin/uv
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/podstrap"]
