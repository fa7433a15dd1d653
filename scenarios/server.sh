# What every scenario needs: `serve` starts a server of its own on a free port, which the clients
# find by BREWCTL_ADDR; `expect` checks what happened. What a store or the cloud keeps goes into a
# folder of the scenario's own. To be sourced, by a shell with `set -eu`.

# A scenario begins with what it shows.
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
echo

cd "$(dirname "$0")/.."
PATH=$PWD/bin:$PATH
work=$(mktemp -d)
server_log=$work/server.log
server_pid=
export XDG_STATE_HOME="$work/state"
export BREWCTL_STORE=store-01
unset BREWCTL_BUFFER BREWCTL_DATA_DIR

# serve [FLAGS]: starts `brewctl serve` and waits until it listens.
serve() {
  serve_at localhost:0 "$@"
  BREWCTL_ADDR=localhost:$(sed -n 's/^streaming-server started.* port=//p' "$server_log")
  export BREWCTL_ADDR
}

# serve_again [FLAGS]: the same, where the last one listened.
serve_again() {
  serve_at "$BREWCTL_ADDR" "$@"
}

serve_at() {
  : >"$server_log"
  brewctl serve --addr "$@" 2>"$server_log" &
  server_pid=$!
  eventually "the server to start" grep -q '^streaming-server started' "$server_log"
}

# kill_server: as a crash would, without a word to anybody.
kill_server() {
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

# eventually WHAT COMMAND...: waits up to 10 seconds until the command succeeds.
eventually() {
  what=$1
  shift
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ]; then
      echo "✗ waited in vain for $what; the server's log:"
      cat "$server_log"
      exit 1
    fi
    sleep 0.1
  done
}

# server_says LINE: waits for a line that begins so in the server's log.
server_says() {
  eventually "the server to log: $1" grep -q "^$1" "$server_log"
  echo "✓ the server's log: $(grep "^$1" "$server_log" | tail -n 1)"
}

# record_sales N: sale-1 to sale-N onto the store's disk; those that are there already stay as they are.
record_sales() {
  awk -v n="$1" 'BEGIN {
    sale = "{\"type\":\"Sale\",\"eventId\":\"sale-%d\",\"timestamp\":%d000,\"payload\":{\"total\":%d}}\n"
    for (i = 1; i <= n; i++) printf sale, i, 1700000000 + i, i
  }' | brewctl store-sync record --input - -q >"$work/recorded"
  expect "sales on the store's disk" "$1" "$(grep -c '^recorded' "$work/recorded")"
}

# expect_each_once N: the ledger of the cloud has sale-1 to sale-N, and each once.
expect_each_once() {
  brewctl head-office events -o ndjson |
    sed -n 's/.*"eventId":"\([^"]*\)".*/\1/p' | sort >"$work/ledger"
  expect "events in the cloud's ledger" "$1" "$(grep -c . "$work/ledger")"
  awk -v n="$1" 'BEGIN { for (i = 1; i <= n; i++) print "sale-" i }' | sort >"$work/sales"
  expect "those that were recorded, each once" yes \
    "$(cmp -s "$work/sales" "$work/ledger" && echo yes || echo no)"
}

# expect_settled: nothing of the store's buffer waits any more, for the cloud or for a person.
expect_settled() {
  status=0
  brewctl store-sync status --check >"$work/status" || status=$?
  expect "the exit code of status --check: nothing pending, nothing parked" 0 "$status"
}

# expect WHAT EXPECTED ACTUAL
expect() {
  if [ "$2" = "$3" ]; then
    echo "✓ $1: $3"
  else
    echo "✗ $1: expected $2, got $3"
    exit 1
  fi
}

finish() {
  status=$?
  # Whoever still runs because something went wrong.
  jobs -p >"$work/jobs"
  while read -r pid; do
    [ "$pid" = "$server_pid" ] || kill -KILL "$pid" 2>/dev/null || true
  done <"$work/jobs"
  # CONT: a scenario may have stopped it, and it hears of the other signal only then.
  [ -z "$server_pid" ] ||
    { kill "$server_pid" && kill -CONT "$server_pid" && wait "$server_pid"; } || status=1
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
