#!/bin/sh
# Two different sales under one id, as from a till whose counter was set back. To take the second for
# a repetition would lose a sale. The cloud refuses it, loudly; the store parks it, where a person
# sees it and can send it as a sale of its own.
#
# By hand: bin/brewctl serve --memory, and record and flush as below.
set -eu
. "$(dirname "$0")/server.sh"

serve --memory

echo "— one sale from one till, and another of the same id from a till with a buffer of its own"
brewctl store-sync record --type Sale --event-id sale-1 --payload '{"total":299}'
brewctl store-sync flush
export BREWCTL_BUFFER="$work/till-2.db"
brewctl store-sync record --type Sale --event-id sale-1 --payload '{"total":150}'
status=0
brewctl store-sync flush || status=$?
expect "the exit code: an event is left" 5 "$status"
server_says 'WARN event refused: conflict'

echo "— it is parked, with the reason"
brewctl store-sync events --state parked | tee "$work/parked"
expect "parked events" 1 "$(grep -c ' parked .* sale-1 ' "$work/parked")"
status=0
brewctl store-sync status --check >"$work/status" || status=$?
expect "the exit code of status --check" 5 "$status"

echo "— the way out: it becomes a sale of its own"
brewctl store-sync retry sale-1 --new-id
status=0
brewctl store-sync flush || status=$?
expect "the exit code" 0 "$status"
expect_settled
brewctl head-office events -o ndjson >"$work/ledger"
expect "the first sale, as it was" 1 "$(grep '"eventId":"sale-1"' "$work/ledger" | grep -c 299)"
expect "the second, under an id of its own" 1 \
  "$(grep -v '"eventId":"sale-1"' "$work/ledger" | grep -c 150)"
