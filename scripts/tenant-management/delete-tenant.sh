#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=scripts/tenant-management/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if help_wanted "$@"; then
  cat <<'HELP'
Marks a tenant inactive and revokes its keys for good. What it has stored stays, and so does its page in tenants/.

  delete-tenant.sh customer-id [--yes]

  --yes  does not ask

$OKMON_CONTROL_URL and $OKMON_OPERATOR_TOKEN are those of okmon; $OKMON is the program.
HELP
  exit 0
fi

[ $# -ge 1 ] || misused "give the customer's id"
case $1 in -*) misused "give the customer's id first, then flags" ;; esac
okmon tenant delete "$@"
