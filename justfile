# The commands of daily work; `just` alone lists them.

_list:
    @just --list

# Formats the code
fmt:
    cargo fmt

# Formatting and clippy as CI wants them
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# All tests; arguments go to cargo test
test *args:
    scripts/test {{args}}

# The proxy at work, without a configuration or a key
demo *args:
    cargo run --release -- demo {{args}}

# The benchmarks; arguments go to criterion
bench *args:
    cargo bench {{args}}

# The image's program in an empty root (needs root)
image:
    scripts/check-image

# Everything CI runs; without ../shared it skips the advisories
ci:
    CI=false .ci/run
