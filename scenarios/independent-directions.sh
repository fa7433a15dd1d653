#!/bin/sh
# The two directions of a bidirectional stream do not wait for each other: all twenty messages
# leave before the first echo comes.
#
# By hand: make run-chat ARGS="-count=20 -interval=10ms"
set -eu
. "$(dirname "$0")/server.sh"

# The lesson's delay is 200ms, and twenty sends at 10ms take 190ms: on a busy machine that is too
# close to show the same picture every time.
serve --echo-delay 1s

echo "— two echoes are enough to see it"
brewctl chat -count=20 -interval=10ms -limit=2 | tee "$work/chat"

expect "messages sent before the first echo" 20 "$(sed '/^</,$d' "$work/chat" | grep -c '^> sent')"
expect "the first echo" "< echo from server: echo: ping 1" "$(grep '^<' "$work/chat" | head -n 1)"
