# The image holds one file: the program, linked statically. No shell, no libraries, no package manager, no keys.
#
#   docker build -t cloudbeds-auth-proxy .
#
# scripts/check-image builds the same program in the same way and runs it alone in an empty root, as the image does.

FROM rust:1.95.0-slim-bookworm AS build
# The image has the toolchain; without this, rustup would fetch the components that rust-toolchain.toml adds for
# development.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
# With --target, the flags are for the program alone and not for build scripts, which cannot be linked statically.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc --print host-tuple)" && \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" && \
    cp "target/$target/release/cloudbeds-auth-proxy" /cloudbeds-auth-proxy

FROM scratch
LABEL org.opencontainers.image.title="cloudbeds-auth-proxy" \
      org.opencontainers.image.description="An authenticating reverse proxy and Kubernetes sidecar for the Cloudbeds API" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /cloudbeds-auth-proxy /cloudbeds-auth-proxy
# Where keys.yaml is looked for unless the configuration says otherwise: mount a directory here.
WORKDIR /etc/cloudbeds-auth-proxy
# A number, since there is no /etc/passwd, and so that Kubernetes' runAsNonRoot can see that it is not root.
USER 65532:65532
# Asks the admin listener of the configuration in CLOUDBEDS_AUTH_PROXY_CONFIG, or of the defaults.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/cloudbeds-auth-proxy", "healthcheck"]
ENTRYPOINT ["/cloudbeds-auth-proxy"]
CMD ["serve"]
