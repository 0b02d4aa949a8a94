#!/usr/bin/env bash
# Runs every fuzz target in fuzz/ for some time, after building them all once.
#
#   scripts/fuzz.sh           ten seconds each: what CI does
#   scripts/fuzz.sh 600       ten minutes each
#   scripts/fuzz.sh 600 count route   these only
#
# Needs a Rust toolchain and a C++ compiler (installed by apt-get where it is missing and may be). What a target finds
# is left in fuzz/artifacts/, and how to run it again is printed; what it learnt is kept in fuzz/corpus/. The layout is that of
# cargo-fuzz, so `cargo fuzz run TARGET` works too, with a nightly compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly seconds=${1:-10}
[ $# -eq 0 ] || shift
say() { printf '== %s\n' "$*"; }
die() { printf 'scripts/fuzz.sh: %s\n' "$*" >&2; exit 1; }

[[ $seconds =~ ^[0-9]+$ ]] || die "the first argument is a number of seconds, not $seconds"
if ! command -v c++ >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "no c++: install a C++ compiler (apt-get install g++)"
  fi
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends g++
fi

mapfile -t all < <(sed -nE 's/^name = "(.*)"$/\1/p' fuzz/Cargo.toml | tail -n +2)
targets=("${@:-${all[@]}}")
for target in "${targets[@]}"; do
  [ -f "fuzz/fuzz_targets/$target.rs" ] || die "no target $target; there are: ${all[*]}"
done

say "building the fuzz targets"
# What is attacked has the versions that it is shipped with; cargo adds the engine, which Cargo.toml pins.
cp Cargo.lock fuzz/Cargo.lock
# Naming the target keeps what the compiler itself loads apart from what is instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
# The instrumentation is behind flags that a stable compiler takes only so.
RUSTC_BOOTSTRAP=1 RUSTC_WRAPPER=$PWD/fuzz/instrument.sh OKMON_FUZZ_TARGETS="${all[*]}" \
  cargo build --release --bins --target "$host" --manifest-path fuzz/Cargo.toml
binaries=fuzz/target/$host/release

for target in "${targets[@]}"; do
  say "fuzzing $target for $seconds s"
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  options=(-max_total_time="$seconds" -timeout=10 "-artifact_prefix=fuzz/artifacts/$target/")
  [ ! -f "fuzz/dictionaries/$target" ] || options+=(-dict="fuzz/dictionaries/$target")
  log=fuzz/artifacts/$target.log
  if ! "$binaries/$target" "fuzz/corpus/$target" "fuzz/seeds/$target" "${options[@]}" >"$log" 2>&1; then
    tail -n 40 "$log"
    die "$target found something: $binaries/$target fuzz/artifacts/$target/FILE runs it again"
  fi
  grep -E '^#.* cov: ' "$log" | tail -n 1
  tail -n 1 "$log"
done
say "nothing found"
