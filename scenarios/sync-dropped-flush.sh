#!/bin/sh
# The connection breaks in the middle of a flush. Nothing was said about the events of that call, so
# they go up again, in a smaller batch; what the cloud had stored already it counts as duplicates.
#
# By hand: bin/brewctl serve --memory --fault-drop-after 40, then bin/brewctl store-sync flush
set -eu
. "$(dirname "$0")/server.sh"

serve --memory --fault-drop-after 40

record_sales 60
status=0
brewctl store-sync flush --deadline 30s >"$work/summary" 2>"$work/talk" || status=$?
cat "$work/talk" "$work/summary"
expect "the exit code: it survives that by itself" 0 "$status"
expect "that the call was lost is said" 1 "$(grep -c '^offline: .*dropped on purpose' "$work/talk")"
expect "what went up twice, and counts once" \
  "Upload complete — 20 accepted, 40 rejected (40 duplicates)" "$(cat "$work/summary")"
expect_each_once 60
expect_settled
