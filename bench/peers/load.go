package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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

// subscribe reads a whole subscription. The customer id comes back in every event and gives it its
// size.
func (l *loader) subscribe(ctx context.Context, client ordersv1.StreamingServiceClient) (*ordersv1.UploadSummary, error) {
	customer := l.padding("cus-042", func(customer string) proto.Message {
		return &ordersv1.OrderEvent{
			OrderId: "ord-1767323045000-100000", CustomerId: customer, AmountCents: 1234, EmittedAt: timestamppb.Now(),
		}
	})
	stream, err := client.Subscribe(ctx, &ordersv1.SubscribeRequest{CustomerId: customer, Limit: int32(l.count)})
	if err != nil {
		return nil, err
	}
	for received := 0; ; received++ {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) && received == l.count {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("after %d of %d events: %w", received, l.count, err)
		}
		if event.GetCustomerId() != customer || event.GetOrderId() == "" {
			return nil, fmt.Errorf("event %d is not an order of %s: %v", received, customer, event)
		}
	}
}

// upload sends the records of the lesson and checks the summary's arithmetic.
func (l *loader) upload(ctx context.Context, client ordersv1.StreamingServiceClient) (*ordersv1.UploadSummary, error) {
	padding := l.padding("", func(padding string) proto.Message {
		return &ordersv1.OrderInput{CustomerId: "cus-042" + padding, AmountCents: 100_000, Currency: "USD"}
	})
	stream, err := client.UploadOrders(ctx)
	if err != nil {
		return nil, err
	}
	for i := range l.count {
		record := &ordersv1.OrderInput{
			CustomerId:  fmt.Sprintf("cus-%03d", i%5) + padding,
			AmountCents: int64(100 + 10*i),
			Currency:    "USD",
		}
		if i < l.bad {
			record.AmountCents = 0
		}
		if err := stream.Send(record); err != nil {
			// Send says EOF when the call has ended; the status is with the answer.
			_, err = stream.CloseAndRecv()
			return nil, fmt.Errorf("after %d of %d records: %w", i, l.count, err)
		}
		if err := wait(ctx, l.pause); err != nil {
			return nil, err
		}
	}
	summary, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	if int(summary.GetReceived()) != l.count || summary.GetAccepted()+summary.GetRejected() != summary.GetReceived() {
		return nil, fmt.Errorf("the summary of %d records is %v", l.count, summary)
	}
	return summary, nil
}

// chat sends messages, up to a window of them before their echo, and checks that the echoes come in
// order.
func (l *loader) chat(ctx context.Context, client ordersv1.StreamingServiceClient) (*ordersv1.UploadSummary, error) {
	padding := l.padding("", func(padding string) proto.Message {
		return &ordersv1.ChatMessage{From: "peer", Text: "ping 10000" + padding, SentAt: timestamppb.Now()}
	})
	text := func(i int) string { return fmt.Sprintf("ping %d%s", i+1, padding) }
	group, groupCtx := errgroup.WithContext(ctx)
	stream, err := client.Chat(groupCtx)
	if err != nil {
		return nil, err
	}
	// A place in the window for each message that waits for its echo.
	window := make(chan struct{}, l.window)
	group.Go(func() error {
		for i := range l.count {
			select {
			case window <- struct{}{}:
			case <-groupCtx.Done():
				return groupCtx.Err()
			}
			err := stream.Send(&ordersv1.ChatMessage{From: "peer", Text: text(i), SentAt: timestamppb.Now()})
			if errors.Is(err, io.EOF) {
				// The call has ended; the reader has its status.
				return nil
			}
			if err != nil {
				return err
			}
			if err := wait(groupCtx, l.pause); err != nil {
				return err
			}
		}
		return stream.CloseSend()
	})
	group.Go(func() error {
		for i := 0; ; i++ {
			echo, err := stream.Recv()
			if errors.Is(err, io.EOF) && i == l.count {
				return nil
			}
			if err != nil {
				return fmt.Errorf("after %d of %d echoes: %w", i, l.count, err)
			}
			if i >= l.count || echo.GetText() != "echo: "+text(i) {
				return fmt.Errorf("echo %d is %q", i+1, echo.GetText())
			}
			<-window
		}
	})
	return nil, group.Wait()
}

// padding returns the text that, at the end of `start`, makes a message as large as was asked for.
func (l *loader) padding(start string, message func(padded string) proto.Message) string {
	missing := max(0, l.bytes-proto.Size(message(start)))
	return start + strings.Repeat("x", missing)
}

// cpuTime is what this process has used so far, of all processors.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
