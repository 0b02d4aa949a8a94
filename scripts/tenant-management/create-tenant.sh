#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=scripts/tenant-management/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if help_wanted "$@"; then
  cat <<'HELP'
Makes a tenant, prints its first key once, and saves a page for the customer:
who they are, where to send, settings to paste.

  create-tenant.sh "Customer Name" "customer@example.com" customer-id [--with-key] [okmon tenant create's flags]

  --with-key  the page has the key; without, it says where the key goes

The page is tenants/CUSTOMER-ID.md of this repository, or in $TENANTS_DIR; only you can read it.
$OKMON_INGEST_URL is where senders reach the edge, else https://$DOMAIN.
$OKMON_CONTROL_URL and $OKMON_OPERATOR_TOKEN are those of okmon; $OKMON is the program.
HELP
  exit 0
fi

[ $# -ge 3 ] || misused "give the customer's name, e-mail address and id"
for argument in "${@:1:3}"; do
  case $argument in -*) misused "give the customer's name, e-mail address and id first, then flags" ;; esac
done
name=$1 email=$2 id=$3
shift 3
customer_id "$id"

if [ -n "${DOMAIN:-}" ]; then
  export OKMON_INGEST_URL=${OKMON_INGEST_URL:-https://$DOMAIN}
fi
folder=${TENANTS_DIR:-$root/tenants}
(umask 077 && mkdir -p "$folder")
okmon tenant create "$name" "$email" "$id" --sheet "$folder/$id.md" "$@"
