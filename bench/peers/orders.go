package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	ordersv1 "brewctl/peers/gen/orders/v1"
)

// readAhead is how many messages of a chat may wait for their echo. Once they do, nobody reads, and
// flow control slows the client down.
const readAhead = 64

// orders implements orders.v1.StreamingService as the lesson describes it. Each method logs who
// ended the call.
type orders struct {
	ordersv1.UnimplementedStreamingServiceServer
	tick      time.Duration
	echoDelay time.Duration
	logger    *slog.Logger
	// counter keeps order ids apart that are made in the same millisecond.
	counter atomic.Int64
}

// Subscribe sends an event every tick until the limit is reached, or until the client has gone.
func (o *orders) Subscribe(request *ordersv1.SubscribeRequest, stream grpc.ServerStreamingServer[ordersv1.OrderEvent]) error {
	o.logger.Info("subscribe started", "customer_id", request.GetCustomerId(), "limit", request.GetLimit())
	for sent := int32(0); ; {
		if err := wait(stream.Context(), o.tick); err != nil {
			o.logger.Info("subscribe ended: client gone", "sent", sent)
			return err
		}
		if err := stream.Send(o.event(request.GetCustomerId())); err != nil {
			o.logger.Info("subscribe ended: client gone", "sent", sent)
			return err
		}
		sent++
		if sent == request.GetLimit() {
			o.logger.Info("subscribe ended: limit reached", "sent", sent)
			return nil
		}
	}
}

func (o *orders) event(customer string) *ordersv1.OrderEvent {
	now := time.Now()
	if customer == "" {
		customer = fmt.Sprintf("cus-%03d", rand.IntN(100))
	}
	return &ordersv1.OrderEvent{
		OrderId:     fmt.Sprintf("ord-%d-%d", now.UnixMilli(), o.counter.Add(1)),
		CustomerId:  customer,
		AmountCents: 100 + rand.Int64N(9900),
		EmittedAt:   timestamppb.New(now),
	}
}

// UploadOrders counts the records until the client half-closes. Only then is the upload complete:
// every other end of the stream is an error of Recv, and the client gets no summary.
func (o *orders) UploadOrders(stream grpc.ClientStreamingServer[ordersv1.OrderInput, ordersv1.UploadSummary]) error {
	summary := &ordersv1.UploadSummary{}
	for {
		input, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			o.logger.Info("upload ended", counts(summary)...)
			return stream.SendAndClose(summary)
		}
		if err != nil {
			o.logger.Info("upload ended: client gone", append(counts(summary), "err", err)...)
			return err
		}
		summary.Received++
		if input.GetAmountCents() <= 0 || input.GetCustomerId() == "" {
			summary.Rejected++
			continue
		}
		summary.Accepted++
		summary.TotalCents += input.GetAmountCents()
	}
}

func counts(summary *ordersv1.UploadSummary) []any {
	return []any{"received", summary.GetReceived(), "accepted", summary.GetAccepted(), "rejected", summary.GetRejected()}
}

// Chat echoes each message in order, one echo delay after the echo before it. One goroutine reads
// and this one writes, so that a client may send while echoes are due.
func (o *orders) Chat(stream grpc.BidiStreamingServer[ordersv1.ChatMessage, ordersv1.ChatMessage]) error {
	texts := make(chan string, readAhead)
	var ended error
	go func() {
		defer close(texts)
		for {
			message, err := stream.Recv()
			if err != nil {
				ended = err
				return
			}
			select {
			case texts <- message.GetText():
			case <-stream.Context().Done():
				ended = stream.Context().Err()
				return
			}
		}
	}()
	for text := range texts {
		if err := wait(stream.Context(), o.echoDelay); err != nil {
			o.logger.Info("chat ended: client gone", "err", err)
			return err
		}
		echo := &ordersv1.ChatMessage{From: "server", Text: "echo: " + text, SentAt: timestamppb.Now()}
		if err := stream.Send(echo); err != nil {
			o.logger.Info("chat ended: client gone", "err", err)
			return err
		}
	}
	if !errors.Is(ended, io.EOF) {
		o.logger.Info("chat ended: client gone", "err", ended)
		return ended
	}
	o.logger.Info("chat ended: client closed send")
	return nil
}

// wait returns after the duration, or with an error as soon as the context has ended.
func wait(ctx context.Context, duration time.Duration) error {
	if duration <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
