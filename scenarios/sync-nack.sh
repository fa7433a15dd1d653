#!/bin/sh
# A cloud that refuses every third event for now. The store sends those again after a while, on the
# same call, and in the end each is in the ledger, once.
#
# By hand: bin/brewctl serve --memory --fault-nack 0.3, then bin/brewctl store-sync channel
set -eu
. "$(dirname "$0")/server.sh"

serve --memory --fault-nack 0.3

record_sales 100
status=0
brewctl store-sync channel --until-drained --deadline 30s >"$work/answers" 2>"$work/verdict" ||
  status=$?
grep '^NACK' "$work/answers" | head -n 3
cat "$work/verdict"
expect "the exit code" 0 "$status"
expect "some were refused" yes "$(grep -q '^NACK: .* Will retry.$' "$work/answers" && echo yes)"
expect "acknowledged" 100 "$(grep -c '^ACK: sale-' "$work/answers")"
expect_each_once 100
expect_settled
