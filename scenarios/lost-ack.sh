#!/bin/sh
# The worst moment to lose an answer: the cloud has stored the event, and the store does not hear of
# it. The store must send it again, and the cloud must see that it is no second sale.
#
# By hand: bin/brewctl serve --memory --fault-lose-ack 0.1, then bin/brewctl store-sync channel; an
# event without an answer goes up again after five seconds.
set -eu
. "$(dirname "$0")/server.sh"

serve --data-dir "$work/cloud" --fault-lose-ack 1

record_sales 20
brewctl store-sync channel --until-drained >"$work/answers" 2>"$work/talk" &
client_pid=$!
echo "— this cloud stores everything and answers nothing"
all_in_the_ledger() {
  [ "$(brewctl head-office events | grep -c .)" = 20 ]
}
eventually "all to be in the ledger" all_in_the_ledger
expect "answers" 0 "$(grep -c . "$work/answers" || true)"
brewctl store-sync status >"$work/status"
expect "what the store knows: all are pending" 1 "$(grep -c '^pending *20,' "$work/status")"

echo "— and is replaced by one that answers"
kill_server
serve_again --data-dir "$work/cloud"
status=0
wait "$client_pid" || status=$?
cat "$work/talk"
expect "the exit code" 0 "$status"
expect "events that went up twice" 20 \
  "$(grep -c '^ACK: sale-.* (the cloud had it already)$' "$work/answers")"
expect_each_once 20
expect_settled
