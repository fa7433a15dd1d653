package main

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	ordersv1 "brewctl/peers/gen/orders/v1"
	syncv1 "brewctl/peers/gen/sync/v1"
)

// serve runs both services until the context ends. It logs to standard error; the first line names
// the address, which tells a caller that asked for port 0 which port it got.
func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:0", "where to listen")
	tick := flags.Duration("tick", time.Second, "the time between two events of a subscription; 0: no wait")
	echoDelay := flags.Duration("echo-delay", 200*time.Millisecond, "the time before each echo; 0: no wait")
	minPing := flags.Duration("min-ping", 0, "the least time between two pings of a client; 0: grpc-go's default, 5m")
	logPings := flags.Bool("log-pings", false, "log each ping of a client")
	if err := flags.Parse(args); err != nil {
		return err
	}

	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	if *logPings {
		listener = &pingListener{Listener: listener, logger: logger}
	}
	var options []grpc.ServerOption
	if *minPing > 0 {
		// As strict as the default in all but the time.
		options = append(options, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: *minPing}))
	}
	server := grpc.NewServer(options...)
	ordersv1.RegisterStreamingServiceServer(server, &orders{tick: *tick, echoDelay: *echoDelay, logger: logger})
	syncv1.RegisterSyncEngineServer(server, newEngine(logger))

	// Calls that are running are cancelled: the streams here may be endless.
	context.AfterFunc(ctx, server.Stop)
	logger.Info("peer started", "addr", listener.Addr(), "tick", *tick, "echo_delay", *echoDelay)
	return server.Serve(listener)
}
