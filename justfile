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

# Ten minutes of everything at once; arguments are seconds and a seed
chaos *args:
    scripts/chaos {{args}}

# The proxy at work, without a configuration or a key
demo *args:
    cargo run --release -- demo {{args}}

# The benchmarks of parts and single requests; arguments go to criterion
bench *args:
    cargo bench --bench key_lookup --bench request_path {{args}}

# Instructions of each stage beside the committed figures; --update writes those anew
instructions *args:
    scripts/instructions {{args}}

# Beside nginx and HAProxy, about ten minutes; --quick for a look, --help for the rest
side-by-side *args:
    cargo bench --bench side_by_side -- {{args}}

# Ten minutes of load on ours, and what its memory does
soak *args:
    cargo bench --bench side_by_side -- --works soak {{args}}

# A day of a thousand hotels through fifty replicas, on a paused clock; --replicas 1 or --quick for a look, --help for the rest
budget-day *args:
    cargo bench --bench budget_day -- {{args}}

# Load for a sandbox, or for a proxy of one's own; --help says how
load *args:
    cargo bench --bench load -- {{args}}

# Fuzzes a target, or all; a number is the seconds for each
fuzz *args:
    scripts/fuzz {{args}}

# The image's program in an empty root (needs root)
image:
    scripts/check-image

# Everything CI runs; without ../shared it skips the advisories
ci:
    CI=false .ci/run
