# podstrap's images.
#
#   docker build --target scratch -t podstrap:scratch .    the static binary alone
#   docker build --target uv -t podstrap:uv .              the binary and a static uv, for `copy-self`
#   docker build --target python -t podstrap:python3.13 .  both, with Python: for an init container
#
# podman takes the same arguments. --platform linux/arm64 or linux/amd64 builds for that platform. Where it is not the
# machine's own, the compiler runs under emulation, which takes hours. A compiler for the machine's own platform
# compiles for the other one in minutes:
#
#   docker build --platform linux/arm64 --build-arg RUST=amd64/rust:1.95.0-slim-bookworm --target uv -t podstrap:uv .
#
# scratch, uv: for Pods whose app image runs `podstrap init` (k8s/recommended). The files run in any image of
# the architecture. They are in /bin, so a volume at /podstrap does not hide them. As an image volume at
# /podstrap, the path is /podstrap/bin/podstrap.
#
# python: for Pods with an init image (k8s/article). BASE is its Python image. Its C library and Python version
# must match the app's image. BASE also downloads uv, so it needs pip.
#
# The images have no files with root certificates: podstrap and uv contain Mozilla's. SSL_CERT_FILE or
# SSL_CERT_DIR select others.
#
# The same sources and the same RUST give the same binary, byte for byte: one compiler, Cargo.lock, and the
# same paths. `tests/containers.sh --reproducible` builds it twice and compares.
ARG RUST=rust:1.95.0-slim-bookworm
ARG BASE=python:3.13-slim-bookworm

FROM ${RUST} AS build
# Empty without --platform, if the builder is not BuildKit.
ARG TARGETARCH
RUN case $TARGETARCH:$(uname -m) in \
      arm64:x86_64) cpu=aarch64 gcc=aarch64 ;; \
      amd64:aarch64) cpu=x86_64 gcc=x86-64 ;; \
      *) : >/cross; exit ;; \
    esac \
 && apt-get update -q && apt-get install -qy --no-install-recommends gcc-$gcc-linux-gnu "libc6-dev-$TARGETARCH-cross" \
 && rustup target add $cpu-unknown-linux-gnu \
 && echo "--target $cpu-unknown-linux-gnu --config target.$cpu-unknown-linux-gnu.linker=\"$cpu-linux-gnu-gcc\"" >/cross
WORKDIR /src
# Build the dependencies first: they change less often than the sources. Leave out rust-toolchain.toml, because
# rustup would also download the lint tools for it. RUST has the same version.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && cargo build --release --locked $(cat /cross) \
 && rm -rf src
COPY src src
COPY examples examples
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked $(cat /cross) \
 && cp target/*-linux-*/release/podstrap /podstrap

# The uv of the musllinux wheels is static, so it runs in any image, and `copy-self` copies it there.
FROM ${BASE} AS wheel
ARG TARGETARCH
ARG UV=0.13.9
ARG UV_X86_64=2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25
ARG UV_AARCH64=5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe
RUN case ${TARGETARCH:-$(uname -m)} in \
      amd64 | x86_64) cpu=x86_64 ;; \
      arm64 | aarch64) cpu=aarch64 ;; \
      *) echo "no hash of uv for linux/$TARGETARCH: use --platform linux/amd64 or linux/arm64" >&2; exit 1 ;; \
    esac \
 && echo "uv==${UV} --hash=sha256:${UV_X86_64} --hash=sha256:${UV_AARCH64}" >/tmp/uv.txt \
 && python3 -m pip download --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
      --platform "musllinux_1_1_$cpu" -d /tmp/uv -r /tmp/uv.txt \
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
