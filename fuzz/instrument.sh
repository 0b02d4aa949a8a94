#!/bin/sh
# A wrapper around rustc for `scripts/fuzz.sh`: instruments what is attacked and what is a second opinion on it, and leaves the
# many other dependencies as they are, which makes the build several times as fast as `cargo fuzz build`. Our own crates have no
# unsafe code, so the address sanitizer watches only those that have.
#
# Procedural macros and build scripts run inside the compiler's own processes, which have no sanitizer: what they consist of is left
# alone too. Cargo names a target only for what is not theirs.
rustc=$1
shift
name=
target=
previous=
for argument in "$@"; do
  case $previous in
  --crate-name) name=$argument ;;
  --target) target=$argument ;;
  esac
  previous=$argument
done
[ -n "$target" ] || exec "$rustc" "$@"
coverage='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares'
# shellcheck disable=SC2086
case " $OKMON_FUZZ_TARGETS " in
*" $name "*) exec "$rustc" "$@" $coverage -Zsanitizer=address ;;
esac
# shellcheck disable=SC2086
case $name in
bytes | http | httparse | hyper | prost) exec "$rustc" "$@" $coverage -Zsanitizer=address ;;
edge | fuzz | model | opentelemetry_proto | wire) exec "$rustc" "$@" $coverage ;;
*) exec "$rustc" "$@" ;;
esac
