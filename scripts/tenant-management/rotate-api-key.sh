#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=scripts/tenant-management/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if help_wanted "$@"; then
  cat <<'HELP'
Makes a new key for a tenant, prints it once, and lets the old one work for a while.

  rotate-api-key.sh customer-id [--grace 24h] [--key KEY_ID] [okmon key rotate's flags]

  --grace TIME  how long the old key goes on working; 0 revokes it now
  --key KEY_ID  which key, where the tenant has several

$OKMON_CONTROL_URL and $OKMON_OPERATOR_TOKEN are those of okmon; $OKMON is the program.
HELP
  exit 0
fi

[ $# -ge 1 ] || misused "give the customer's id"
case $1 in -*) misused "give the customer's id first, then flags" ;; esac
okmon key rotate "$@"
