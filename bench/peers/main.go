// Peers is the software that brewctl is measured against and tested with: a gRPC server and a load
// client on grpc-go, which share nothing with brewctl but the contract in proto/.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  peers serve [-addr host:port] [-tick duration] [-echo-delay duration] [-min-ping duration] [-log-pings]
  peers load subscribe|upload|chat -addr host:port [flags]
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "peers: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "serve":
		return serve(ctx, args[1:])
	case len(args) >= 2 && args[0] == "load":
		return load(ctx, args[1], args[2:])
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
		return nil
	}
}
