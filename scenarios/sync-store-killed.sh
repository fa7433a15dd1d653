#!/bin/sh
# The store dies in the middle of a flush. Its buffer is a file, and the lock on it is the kernel's:
# the next flush begins where the last answer was noted, and no sale is lost or counted twice.
#
# By hand: bin/brewctl serve --memory, bin/brewctl store-sync flush, and kill -9 the latter.
set -eu
. "$(dirname "$0")/server.sh"

# The cloud stores the events at once and keeps its answer to itself for long enough to die meanwhile.
serve --memory --fault-latency 2s

record_sales 600
brewctl store-sync flush >"$work/first" 2>&1 &
client_pid=$!
ledger_has_some() {
  [ -n "$(brewctl head-office events --limit 1)" ]
}
eventually "the cloud to store some" ledger_has_some
echo "— SIGKILL: the store cannot note any answer"
kill -KILL "$client_pid"
wait "$client_pid" 2>/dev/null || true
expect "summaries that it has got" 0 "$(grep -c '^Upload complete' "$work/first" || true)"

echo "— and once more"
status=0
brewctl store-sync flush | tee "$work/second" || status=$?
expect "the exit code" 0 "$status"
expect "some went up twice" yes "$(grep -q 'duplicates' "$work/second" && echo yes)"
expect_each_once 600
expect_settled
