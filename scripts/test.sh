#!/usr/bin/env bash
# Runs every test, after installing what the tests need and this machine lacks.
#
#   scripts/test.sh                  everything
#   scripts/test.sh -p testkit loki  arguments go to cargo test
#   scripts/test.sh --prepare        installs and builds the peers, runs nothing
#
# Needs a Rust toolchain, a C compiler and a Debian-like system where it may
# use apt-get (as root or by sudo). Everything else goes to .cache/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }
die() { printf 'scripts/test.sh: %s\n' "$*" >&2; exit 1; }

# The oldest Go that can fetch the one go.mod names, and the one to fetch by hand where even that is missing.
readonly go_minor_min=21
readonly go_bootstrap=go1.26.7

cache=$PWD/.cache
peers=$PWD/crates/testkit/peers
mkdir -p "$cache/bin"

command -v cargo >/dev/null || die "no cargo: install Rust 1.95 or newer (rustup.rs)"
command -v cc >/dev/null || die "no cc: install a C compiler (apt-get install gcc libc6-dev)"

# --- Debian packages ---------------------------------------------------------

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "to install packages, run as root or install sudo: $*"
  fi
}

missing=()
need() { "${@:2}" >/dev/null 2>&1 || missing+=("$1"); }

has_faketime() { compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1'; }
has_nss_wrapper() { compgen -G '/usr/lib/*/libnss_wrapper.so'; }
has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' || command -v initdb; }
# The JavaScript SDK wants Node.js 18.19 or newer.
has_node() { node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 18 || (a === 18 && b >= 19) ? 0 : 1)'; }

need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need curl command -v curl
need postgresql has_postgres
need faketime has_faketime
need libnss-wrapper has_nss_wrapper
need prometheus command -v prometheus
need openssl command -v openssl
need caddy command -v caddy
need nghttp2-client command -v h2load
need wrk command -v wrk
need pebble command -v pebble
need systemd command -v systemd-socket-activate
need victoria-metrics command -v vmagent
need python3-venv python3 -c 'import venv, ensurepip'
need nodejs has_node
need npm command -v npm
need golang-go command -v go

# Packages of servers start them when installed; policy-rc.d is Debian's way to say no.
# One that is there already stays in charge.
install_packages() {
  local policy=/usr/sbin/policy-rc.d ours=no
  if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  local status=0
  as_root env DEBIAN_FRONTEND=noninteractive sh -c '
    apt-get -o DPkg::Lock::Timeout=300 update -q &&
    apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends "$@"' sh "$@" || status=$?
  if [ "$ours" = yes ]; then as_root rm -f "$policy"; fi
  return "$status"
}

if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "install these by hand, named as Debian names them: ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  install_packages "${missing[@]}" </dev/null || die "apt-get failed"
  has_node || die "Node.js 18.19 or newer is needed, this is $(node --version)"
fi

# --- Senders and peers in .cache/ --------------------------------------------

# fresh NAME FILE... - whether the step NAME was last done with the same files.
stamp_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
fresh() { [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$(stamp_of "${@:2}")" ]; }
done_with() { stamp_of "${@:2}" >"$cache/$1.stamp"; }

python_inputs=("$peers/python/requirements.txt")
if ! fresh python "${python_inputs[@]}" || ! "$cache/python/bin/python" -c '' 2>/dev/null; then
  say "installing the Python senders into .cache/python"
  rm -rf "$cache/python"
  python3 -m venv "$cache/python"
  "$cache/python/bin/pip" install --quiet --disable-pip-version-check -r "$peers/python/requirements.txt"
  done_with python "${python_inputs[@]}"
fi

js_inputs=("$peers/js/package.json" "$peers/js/package-lock.json")
if ! fresh js "${js_inputs[@]}" || [ ! -d "$cache/js/node_modules" ]; then
  say "installing the JavaScript senders into .cache/js"
  mkdir -p "$cache/js"
  cp "${js_inputs[@]}" "$cache/js/"
  (cd "$cache/js" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  done_with js "${js_inputs[@]}"
fi

# A Go that can build the collector. Go since 1.21 fetches the version that go.mod names;
# an older one (Debian 12's) is asked to download a newer one as the module it is published as.
go_command() {
  local minor
  minor=$(go env GOVERSION | sed -E 's/^go1\.([0-9]+).*/\1/')
  if [ "$minor" -ge "$go_minor_min" ]; then
    command -v go
    return
  fi
  local module dir
  module="golang.org/toolchain@v0.0.1-$go_bootstrap.$(go env GOOS)-$(go env GOARCH)"
  dir=$(cd / && go mod download -json "$module" | sed -nE 's/^\s*"Dir": "(.*)",$/\1/p')
  [ -n "$dir" ] || return 1
  chmod -R u+w "$dir/bin" "$dir/pkg/tool"
  chmod -R a+x "$dir/bin" "$dir/pkg/tool"
  printf '%s/bin/go\n' "$dir"
}

# go_program FOLDER MINUTES - builds peers/FOLDER as .cache/bin/okmon-FOLDER.
go_program() {
  local inputs binary="$cache/bin/okmon-$1" go
  mapfile -t inputs < <(find "$peers/$1" -name '*.go' -o -name 'go.*' | LC_ALL=C sort)
  if fresh "$1" "${inputs[@]}" && [ -x "$binary" ]; then return; fi
  go=$(go_command) || die "Go 1.$go_minor_min or newer is needed to build $binary, this is $(go version)"
  say "building .cache/bin/okmon-$1 ($2 minutes of CPU time the first time)"
  (cd "$peers/$1" && GOFLAGS='-mod=readonly -buildvcs=false' GOTOOLCHAIN="${GOTOOLCHAIN:-auto}" \
    "$go" build -trimpath -ldflags '-s -w' -o "$binary" .)
  done_with "$1" "${inputs[@]}"
}
go_program collector 3
go_program prometheus 2
go_program h2spec 1

# --- The tests ---------------------------------------------------------------

[ "${1:-}" != --prepare ] || { say "ready"; exit 0; }
if [ $# -eq 0 ]; then
  set -- --workspace
else
  # Some tests start the binary as a user would; testing the whole workspace builds it anyway.
  cargo build -p okmon
fi
say "cargo test $*"
exec cargo test "$@"
