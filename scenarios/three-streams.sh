#!/bin/sh
# The lesson's three streams, one after another.
#
# By hand, in four terminals: make run-server, run-subscribe, run-upload, run-chat
set -eu
. "$(dirname "$0")/server.sh"

serve --tick 200ms

echo "— server stream: one request, five events"
brewctl subscribe | tee "$work/events"
expect "events" 5 "$(grep -c 'order_id=' "$work/events")"
server_says 'subscribe ended: limit reached sent=5'

echo "— client stream: twenty records, one summary"
brewctl upload | tee "$work/upload"
expect "the summary" "summary: received=20 accepted=17 rejected=3 total_cents=3570" \
  "$(tail -n 1 "$work/upload")"
server_says 'upload ended received=20 accepted=17 rejected=3'

echo "— bidirectional stream: five pings, five echoes"
brewctl chat | tee "$work/chat"
expect "echoes" 5 "$(grep -c '^< echo' "$work/chat")"
server_says 'chat ended: client closed send'
