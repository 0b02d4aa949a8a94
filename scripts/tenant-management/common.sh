# shellcheck shell=bash
# What the scripts beside this one share: they find okmon, and say when they are used wrongly. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# misused TEXT... - ends the script as a usage error.
misused() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  printf 'Try %s --help.\n' "${0##*/}" >&2
  exit 2
}

# help_wanted ARGUMENT... - whether --help is among them.
help_wanted() {
  local argument
  for argument in "$@"; do
    case $argument in -h | --help) return 0 ;; esac
  done
  return 1
}

# customer_id TEXT - ends the script unless it is an id. It becomes the name of a file.
customer_id() {
  local LC_ALL=C
  [[ $1 =~ ^[a-z0-9][a-z0-9-]{0,62}$ ]] ||
    misused "not a customer id: use a-z, 0-9 and '-', at most 63, not '-' first"
}

# okmon ARGUMENT... - the command: $OKMON, else the one in PATH, else the one built here.
okmon() {
  local program
  for program in "${OKMON:-okmon}" "$root/target/release/okmon" "$root/target/debug/okmon"; do
    if program=$(type -P "$program"); then
      "$program" "$@"
      return
    fi
    [ -z "${OKMON:-}" ] || break
  done
  printf '%s: no %s: put okmon in PATH, set OKMON to it, or run cargo build --release\n' "${0##*/}" "${OKMON:-okmon}" >&2
  exit 1
}
