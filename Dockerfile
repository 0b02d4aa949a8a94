# syntax=docker/dockerfile:1
# The edge, the control plane and the commands: one binary, in an image without a shell. docs/DEPLOY.md says how to run it.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The binary leaves the cached folder, which is not part of a layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package okmon && \
    install -D target/release/okmon /image/usr/local/bin/okmon && \
    install -d -m 0750 /image/var/lib/okmon /image/etc/okmon

# Debian 12's libc and libgcc, certificates, no shell; the same Debian as above. uid and gid 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build --chown=65532:65532 /image/ /
USER 65532:65532
# Keys' snapshot, certificates by ACME, a database in a file.
VOLUME ["/var/lib/okmon"]
EXPOSE 4317 4318 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/usr/local/bin/okmon", "probe", "http://127.0.0.1:9600/readyz"]
ENTRYPOINT ["/usr/local/bin/okmon"]
CMD ["edge", "--config", "/etc/okmon/edge.toml"]
