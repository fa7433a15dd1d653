#!/bin/sh
# A deadline travels with the call: both sides know when it is over, and both end it then, even if
# neither hears of the other any more.
#
# By hand: make run-subscribe ARGS="-limit=0 --deadline 1s"
set -eu
. "$(dirname "$0")/server.sh"

serve --tick 100ms

status=0
brewctl subscribe --limit 0 --deadline 1s >"$work/events" 2>"$work/verdict" || status=$?
cat "$work/verdict"
expect "the exit code, 64 + DEADLINE_EXCEEDED" 68 "$status"
expect "who ended the stream" 1 "$(grep -c '^stream ended by deadline' "$work/verdict")"
server_says 'subscribe ended: deadline exceeded'

echo "— --for, in contrast, is a rule of the client's own, and meeting it is success"
status=0
brewctl subscribe --limit 0 --for 1s >"$work/events" 2>"$work/verdict" || status=$?
cat "$work/verdict"
expect "the exit code" 0 "$status"
server_says 'subscribe ended: client gone'
