#!/bin/sh
# The common mistake: a client that never says "that was all". Neither side does anything wrong
# from then on, and both wait, until the deadline.
#
# By hand: make run-chat ARGS="--no-half-close --deadline 2s"
set -eu
. "$(dirname "$0")/server.sh"

serve --echo-delay 50ms

status=0
brewctl chat --no-half-close --deadline 2s || status=$?
expect "the exit code, 64 + DEADLINE_EXCEEDED" 68 "$status"
server_says 'chat ended: deadline exceeded'

echo "— and with the half-close"
status=0
brewctl chat --deadline 10s || status=$?
expect "the exit code" 0 "$status"
server_says 'chat ended: client closed send'
