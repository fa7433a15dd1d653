#!/bin/sh
# A shop with three tills. They talk to the bridge in the shop and never to the cloud, so they do not
# notice when it dies: "recorded" means that the sale is on the shop's own disk. When the cloud is
# back, the bridge brings it what it has missed, and each sale is there once.
#
# By hand, in four terminals: bin/brewctl serve, bin/brewctl store-sync run --store store-01,
# bin/brewctl store-sync record --bridge localhost:50053 --type Sale, bin/brewctl head-office events
set -eu
. "$(dirname "$0")/server.sh"

serve --data-dir "$work/cloud"

echo "— the bridge: two doors for tills, one of them only for programs on this machine"
bridge_log=$work/bridge.log
brewctl store-sync run --listen localhost:0 --listen "unix:$work/tills.sock" 2>"$bridge_log" &
bridge_pid=$!
bridge_says() {
  eventually "the bridge to log: $1" grep -q "^$1" "$bridge_log"
  echo "✓ the bridge's log: $(grep "^$1" "$bridge_log" | tail -n 1 | cut -c 1-72)"
}
bridge_says 'store-bridge started'
bridge=$(sed -n 's/^store-bridge started .*listen=\([^, ]*\).*/\1/p' "$bridge_log")
bridge_says 'live: '

# till DOOR FROM TO: records sale-FROM to sale-TO, one after another on one stream.
till() {
  awk -v from="$2" -v to="$3" 'BEGIN {
    sale = "{\"type\":\"Sale\",\"eventId\":\"sale-%d\",\"timestamp\":%d000,\"payload\":{\"total\":%d}}\n"
    for (i = from; i <= to; i++) printf sale, i, 1700000000 + i, i
  }' | brewctl store-sync record --bridge "$1" --input - -q >"$work/till-$2"
}

# tills FROM: three tills at once, with a hundred sales each.
tills() {
  till "$bridge" "$1" $(($1 + 99)) &
  first=$!
  till "$bridge" $(($1 + 100)) $(($1 + 199)) &
  second=$!
  till "unix:$work/tills.sock" $(($1 + 200)) $(($1 + 299)) &
  third=$!
  wait "$first"
  wait "$second"
  wait "$third"
  echo "✓ three tills have heard of 300 sales that they are recorded"
}

# in_ledger N: so many events are in the cloud.
in_ledger() {
  [ "$(brewctl head-office events -q -o ndjson | grep -c .)" -eq "$1" ]
}

tills 1
eventually "300 sales in the cloud" in_ledger 300

echo "— the cloud dies, and the shop goes on selling"
kill_server
bridge_says 'WARN offline'
tills 301
brewctl store-sync status >"$work/offline"
expect "sales that wait for the cloud" 300 "$(sed -n 's/^pending *\([0-9]*\).*/\1/p' "$work/offline")"

echo "— and comes back"
serve_again --data-dir "$work/cloud"
bridge_says 'connected again'
tills 601
eventually "all of them in the cloud" in_ledger 900

echo "— a till that has lost an answer just sends the sale again"
till "$bridge" 601 700
expect "sales that the bridge knew already" 100 "$(grep -c 'it was already' "$work/till-601")"

kill "$bridge_pid"
status=0
wait "$bridge_pid" || status=$?
expect "the exit code of the bridge" 0 "$status"
expect_each_once 900
expect_settled
