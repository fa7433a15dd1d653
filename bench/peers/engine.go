package main

import (
	"errors"
	"io"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	syncv1 "brewctl/peers/gen/sync/v1"
)

// engine implements the streams of sync.v1.SyncEngine with the fields of the original contract
// alone. It remembers the ids of events in memory, and never issues a command.
type engine struct {
	syncv1.UnimplementedSyncEngineServer
	logger *slog.Logger
	mutex  sync.Mutex
	seen   map[[2]string]bool
}

func newEngine(logger *slog.Logger) *engine {
	return &engine{logger: logger, seen: map[[2]string]bool{}}
}

// isNew reports whether the event has not come before, and remembers it.
func (e *engine) isNew(event *syncv1.StoreEvent) bool {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	key := [2]string{event.GetStoreId(), event.GetEventId()}
	wasSeen := e.seen[key]
	e.seen[key] = true
	return !wasSeen
}

// WatchCommands keeps the stream open until the client has gone.
func (e *engine) WatchCommands(handshake *syncv1.StoreHandshake, stream grpc.ServerStreamingServer[syncv1.CloudCommand]) error {
	e.logger.Info("watch started", "store_id", handshake.GetStoreId())
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	<-stream.Context().Done()
	e.logger.Info("watch ended: client gone", "store_id", handshake.GetStoreId())
	return stream.Context().Err()
}

// UploadBufferedEvents answers with what was new, after the client's half-close.
func (e *engine) UploadBufferedEvents(stream grpc.ClientStreamingServer[syncv1.StoreEvent, syncv1.UploadSummary]) error {
	summary := &syncv1.UploadSummary{}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			e.logger.Info("buffered events ended", "accepted", summary.GetAccepted(), "rejected", summary.GetRejected())
			return stream.SendAndClose(summary)
		}
		if err != nil {
			e.logger.Info("buffered events ended: client gone", "err", err)
			return err
		}
		if e.isNew(event) {
			summary.Accepted++
		} else {
			summary.Rejected++
		}
	}
}

// OperationalChannel acknowledges each event in a message of its own, in order.
func (e *engine) OperationalChannel(stream grpc.BidiStreamingServer[syncv1.StoreEvent, syncv1.EventAck]) error {
	e.logger.Info("channel started")
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			e.logger.Info("channel ended: client closed send")
			return nil
		}
		if err != nil {
			e.logger.Info("channel ended: client gone", "err", err)
			return err
		}
		e.isNew(event)
		if err := stream.Send(&syncv1.EventAck{EventId: event.GetEventId(), Ok: true}); err != nil {
			return err
		}
	}
}
