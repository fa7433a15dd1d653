#!/bin/sh
# Is everything there? Both sides count their events by day and type and sum up their digests; where
# that differs, head office asks the store for its events and names them. The cloud cannot dial a
# store: the question goes down on the stream on which the store watches for commands.
#
# By hand: bin/brewctl serve, bin/brewctl store-sync run, bin/brewctl head-office reconcile.
set -eu
. "$(dirname "$0")/server.sh"

days="--from 2023-11-01 --to 2023-12-31"
serve --memory

record_sales 300
brewctl store-sync run --listen "unix:$work/tills" 2>"$work/bridge.log" &
bridge_pid=$!
eventually "the events to go up" grep -q '^live' "$work/bridge.log"

brewctl head-office reconcile --store store-01 $days --receipt "$work/receipt.json" | tee "$work/told"
expect "the verdict" "all 300 of 300" "$(sed -n 's/.*2023-12-31: //p' "$work/told")"
expect "the receipt has it too" yes \
  "$(grep -q '"verdict": "all 300 of 300"' "$work/receipt.json" && echo yes)"

echo "— the cloud forgets everything, as if its disk were lost"
kill_server
serve_again --memory
server_says "Store store-01 connected"
status=0
brewctl head-office reconcile --store store-01 $days | tail -n 1 | tee "$work/told" || status=$?
expect "the verdict" "0 of 300 are the same; 300 acknowledged, and not in the ledger" \
  "$(sed -n 's/.*2023-12-31: //p' "$work/told")"

echo "— so the store sends again what it has kept"
brewctl store-sync replay
all_there() {
  brewctl head-office reconcile --store store-01 $days >"$work/told"
}
eventually "both sides to be the same" all_there
expect "the verdict" "all 300 of 300" "$(sed -n 's/.*2023-12-31: //p' "$work/told")"

kill "$bridge_pid"
wait "$bridge_pid" || true
