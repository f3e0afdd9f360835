# podstrap's images.
#
#   docker build --target scratch -t podstrap:scratch .            the static binary and nothing else
#   docker build --target uv -t podstrap:uv .              and a static uv beside it, for `copy-self`
#   docker build --target python -t podstrap:python3.13 .  with Python and uv: an init container
#
# podman takes the same words. The first two are for Pods whose app's own image runs `podstrap init`
# (k8s/recommended); their files run in any image of the architecture. They lie in /bin, so that a volume
# at /podstrap is not in their way; as an image volume there it is /podstrap/bin/podstrap. The third is for the article's
# Pod (k8s/article): BASE is its Python image, whose libc and Python version must be those of the
# image that runs the app. BASE also fetches uv, and so needs pip.
#
# No image has files with CA roots: the binary and uv have Mozilla's built in, and SSL_CERT_FILE or
# SSL_CERT_DIR name others.
#
# The same sources with the same RUST give the same binary, byte for byte: one compiler, Cargo.lock, and
# the same paths. `tests/containers.sh --reproducible` builds it twice and compares.
ARG RUST=rust:1.95.0-slim-bookworm
ARG BASE=python:3.13-slim-bookworm

FROM ${RUST} AS build
WORKDIR /src
# The dependencies are built apart: they change less often than the sources. rust-toolchain.toml stays
# outside, or rustup would fetch the lints' tools as well: RUST names the same version.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && cargo build --release --locked \
 && rm -rf src
COPY src src
COPY examples examples
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked \
 && cp target/*-linux-*/release/podstrap /podstrap

# The musllinux wheels' uv is static: it runs in any image, and `copy-self` takes it there.
FROM ${BASE} AS wheel
ARG UV=0.13.9
ARG UV_X86_64=2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25
ARG UV_AARCH64=5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe
RUN echo "uv==${UV} --hash=sha256:${UV_X86_64} --hash=sha256:${UV_AARCH64}" >/tmp/uv.txt \
 && python3 -m pip download --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
      --platform "musllinux_1_1_$(uname -m)" -d /tmp/uv -r /tmp/uv.txt \
 && python3 -m zipfile -e /tmp/uv/*.whl /tmp/uv/wheel \
 && install -m 755 /tmp/uv/wheel/uv-*.data/scripts/uv /uv

FROM scratch AS scratch
LABEL org.opencontainers.image.title="podstrap" \
      org.opencontainers.image.description="Boot interpreted apps in Pods" \
      org.opencontainers.image.source="https://github.com/podstrap/podstrap" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /podstrap /bin/podstrap
USER 65532:65532
ENTRYPOINT ["/bin/podstrap"]

FROM scratch AS uv
LABEL org.opencontainers.image.title="podstrap" \
      org.opencontainers.image.description="Boot interpreted apps in Pods: with uv" \
      org.opencontainers.image.source="https://github.com/podstrap/podstrap" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /podstrap /bin/podstrap
COPY --from=wheel /uv /bin/uv
USER 65532:65532
ENTRYPOINT ["/bin/podstrap"]

FROM ${BASE} AS python
LABEL org.opencontainers.image.title="podstrap" \
      org.opencontainers.image.description="Boot interpreted apps in Pods: with Python and uv" \
      org.opencontainers.image.source="https://github.com/podstrap/podstrap" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /podstrap /usr/local/bin/podstrap
COPY --from=wheel /uv /usr/local/bin/uv
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/podstrap"]
