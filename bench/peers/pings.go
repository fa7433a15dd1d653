package main

import (
	"encoding/binary"
	"log/slog"
	"net"
	"sync/atomic"
	"time"
)

// pingListener logs each HTTP/2 PING that a client sends, with its connection's number and age.
// grpc-go shows pings to nobody, so this reads the frames before grpc-go does.
type pingListener struct {
	net.Listener
	logger      *slog.Logger
	connections atomic.Int64
}

func (l *pingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &pingConn{
		Conn:      conn,
		logger:    l.logger.With("connection", l.connections.Add(1)),
		startedAt: time.Now(),
		skip:      len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
	}, nil
}

// pingConn follows the frames of a connection. Only grpc-go's reader calls Read.
type pingConn struct {
	net.Conn
	logger    *slog.Logger
	startedAt time.Time
	// skip counts the bytes before the next frame's header.
	skip int
	// header gathers a frame's header: its length in three bytes, its type, its flags, its stream.
	header []byte
}

const (
	headerLength = 9
	typePing     = 6
	flagAck      = 1
)

func (c *pingConn) Read(buffer []byte) (int, error) {
	n, err := c.Conn.Read(buffer)
	c.follow(buffer[:n])
	return n, err
}

func (c *pingConn) follow(bytes []byte) {
	for len(bytes) > 0 {
		if c.skip > 0 {
			skipped := min(c.skip, len(bytes))
			c.skip -= skipped
			bytes = bytes[skipped:]
			continue
		}
		taken := min(headerLength-len(c.header), len(bytes))
		c.header = append(c.header, bytes[:taken]...)
		bytes = bytes[taken:]
		if len(c.header) < headerLength {
			return
		}
		if c.header[3] == typePing && c.header[4]&flagAck == 0 {
			c.logger.Info("ping", "age_ms", time.Since(c.startedAt).Milliseconds())
		}
		c.skip = int(binary.BigEndian.Uint32(append([]byte{0}, c.header[:3]...)))
		c.header = c.header[:0]
	}
}
