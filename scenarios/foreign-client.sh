#!/bin/sh
# A client that is not ours, buf curl, with a contract that is not quite ours: it calls a method that
# this server does not have, and gets UNIMPLEMENTED. The methods that both know work all the same.
#
# By hand: npx buf curl --protocol grpc --http2-prior-knowledge --data '{"limit": 3}' \
#            http://localhost:50052/orders.v1.StreamingService/Subscribe
set -eu
. "$(dirname "$0")/server.sh"

serve --tick 10ms

cat >"$work/streaming.proto" <<'PROTO'
syntax = "proto3";
package orders.v1;
service StreamingService {
  rpc Subscribe(Request) returns (stream Event);
  rpc CancelOrder(Request) returns (Event);
}
message Request { string customer_id = 1; int32 limit = 2; }
message Event { string order_id = 1; string customer_id = 2; int64 amount_cents = 3; }
PROTO
call() {
  "$PWD/node_modules/.bin/buf" curl --protocol grpc --http2-prior-knowledge \
    --schema "$work/streaming.proto" --data "$2" "http://$BREWCTL_ADDR/orders.v1.StreamingService/$1"
}

status=0
call CancelOrder '{"customerId": "cus-001"}' 2>"$work/error" || status=$?
cat "$work/error"
expect "the exit code; buf's is 8 times the status, UNIMPLEMENTED" 96 "$status"

call Subscribe '{"customerId": "cus-001", "limit": 3}' >"$work/events"
cat "$work/events"
expect "events of the method that both know" 3 "$(grep -c '"orderId"' "$work/events")"
