#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=scripts/tenant-management/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if help_wanted "$@"; then
  cat <<'HELP'
Lists all tenants.

  list-tenants.sh [--json]

$OKMON_CONTROL_URL and $OKMON_OPERATOR_TOKEN are those of okmon; $OKMON is the program.
HELP
  exit 0
fi

okmon tenant list "$@"
