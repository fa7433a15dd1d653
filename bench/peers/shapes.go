package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ordersv1 "brewctl/peers/gen/orders/v1"
)

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
