package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	ordersv1 "brewctl/peers/gen/orders/v1"
)

// loader says how much load there is to be. Each of its methods runs one stream to its end and checks
// every message that comes back.
type loader struct {
	streams int
	count   int
	bad     int
	bytes   int
	window  int
	pause   time.Duration
}

// result is the one line that a run prints.
type result struct {
	Shape string `json:"shape"`
	// Messages counts those of all streams together; an echo and what it answers are one.
	Messages int `json:"messages"`
	// Seconds is the time from the first call to the end of the last one, on open connections.
	Seconds float64 `json:"seconds"`
	// CPUSeconds is the processor time of this process in that time.
	CPUSeconds float64 `json:"cpuSeconds"`
	// Uploads add up what the summaries of all streams say.
	Accepted   int32 `json:"accepted"`
	Rejected   int32 `json:"rejected"`
	TotalCents int64 `json:"totalCents"`
}

// load runs streams of one shape at once, each on a connection of its own, and prints a result as
// JSON. It fails if any message is missing, unexpected or out of order.
func load(ctx context.Context, shape string, args []string) error {
	flags := flag.NewFlagSet("load "+shape, flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:50052", "the server")
	var l loader
	flags.IntVar(&l.streams, "streams", 1, "how many streams at once")
	flags.IntVar(&l.count, "count", 20, "how many messages on each of them")
	flags.IntVar(&l.bad, "bad", 0, "upload: how many records are bad, the first ones")
	flags.IntVar(&l.bytes, "bytes", 0, "how large each message is; 0: as small as in the lesson")
	flags.IntVar(&l.window, "window", 1, "chat: how many messages may wait for their echo; 1: ping-pong")
	flags.DurationVar(&l.pause, "pause", 0, "upload and chat: the time between two messages")
	if err := flags.Parse(args); err != nil {
		return err
	}
	run, ok := map[string]func(context.Context, ordersv1.StreamingServiceClient) (*ordersv1.UploadSummary, error){
		"subscribe": l.subscribe,
		"upload":    l.upload,
		"chat":      l.chat,
	}[shape]
	if !ok {
		return fmt.Errorf("unknown shape %q: subscribe, upload or chat", shape)
	}

	clients := make([]ordersv1.StreamingServiceClient, l.streams)
	for i := range clients {
		conn, err := dial(ctx, *addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		clients[i] = ordersv1.NewStreamingServiceClient(conn)
	}

	summaries := make([]*ordersv1.UploadSummary, l.streams)
	startedAt, cpuBefore := time.Now(), cpuTime()
	group, groupCtx := errgroup.WithContext(ctx)
	for i, client := range clients {
		group.Go(func() (err error) {
			summaries[i], err = run(groupCtx, client)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	r := result{
		Shape:      shape,
		Messages:   l.streams * l.count,
		Seconds:    time.Since(startedAt).Seconds(),
		CPUSeconds: (cpuTime() - cpuBefore).Seconds(),
	}
	for _, summary := range summaries {
		r.Accepted += summary.GetAccepted()
		r.Rejected += summary.GetRejected()
		r.TotalCents += summary.GetTotalCents()
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// dial returns a connection that is open, so that no measurement contains a handshake.
func dial(ctx context.Context, addr string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure {
			conn.Close()
			return nil, fmt.Errorf("no server at %s", addr)
		}
		if !conn.WaitForStateChange(ctx, state) {
			conn.Close()
			return nil, ctx.Err()
		}
	}
	return conn, nil
}

// cpuTime is what this process has used so far, of all processors.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
