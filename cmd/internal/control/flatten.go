package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"skerry/cmd/internal/failure"
	"skerry/volume/catalog"
)

const (
	maxFlattens = 16 // at once; further calls are refused
	beatTime    = time.Second
	writeTime   = 10 * time.Second // for a line
)

// errEnding says that the process that holds a volume is about to end.
var errEnding = fmt.Errorf("the process that holds the volume is ending; what was copied stays: do it again: %w", catalog.ErrInUse)

// errBusy says that too many volumes are being flattened.
var errBusy = fmt.Errorf("%d volumes are being flattened already: wait for one of them: %w", maxFlattens, catalog.ErrInUse)

// flatten answers a call that may take hours: line by line it says how far it is, and in the end how it went. It ends with the
// connection of the caller, and with the server.
func (s *Server) flatten(h Holds) http.Handler {
	slots := make(chan struct{}, maxFlattens)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		defer context.AfterFunc(s.ending, func() { cancel(errEnding) })()
		lines := &lineWriter{w: w, conn: http.NewResponseController(w), stop: func() { cancel(nil) }}
		w.Header().Set("Content-Type", "application/x-ndjson")
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			lines.end(s, r, Volume{}, errBusy)
			return
		}
		ended := make(chan struct{})
		var beats sync.WaitGroup
		beats.Go(func() { lines.beat(ended) })
		v, err := h.Flatten(ctx, r.PathValue("volume"), lines.progress)
		close(ended)
		beats.Wait()
		if cause := context.Cause(ctx); err != nil && cause == errEnding {
			err = cause
		}
		lines.end(s, r, v, err)
	})
}

// lineWriter writes the lines of an answer.
type lineWriter struct {
	w    io.Writer // for one goroutine at a time
	conn *http.ResponseController
	stop func() // the caller has gone, or does not read

	mu   sync.Mutex
	line FlattenLine
}

func (l *lineWriter) progress(done, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line.Done, l.line.Total = done, total
}

// beat writes a line every second, so that the caller knows that somebody is at it.
func (l *lineWriter) beat(ended <-chan struct{}) {
	t := time.NewTicker(beatTime)
	defer t.Stop()
	for {
		l.mu.Lock()
		line := l.line
		l.mu.Unlock()
		l.write(line)
		select {
		case <-t.C:
		case <-ended:
			return
		}
	}
}

func (l *lineWriter) write(line FlattenLine) {
	b, err := json.Marshal(line)
	if err == nil {
		err = l.conn.SetWriteDeadline(time.Now().Add(writeTime))
	}
	if err == nil {
		_, err = l.w.Write(append(b, '\n'))
	}
	if err == nil {
		err = l.conn.Flush()
	}
	if err != nil {
		l.stop()
	}
}

// end writes the last line.
func (l *lineWriter) end(s *Server, r *http.Request, v Volume, err error) {
	l.mu.Lock()
	line := l.line
	l.mu.Unlock()
	if err == nil {
		line.Volume = &v
	} else {
		s.log.Info("control call failed", "call", r.Method+" "+r.URL.Path, "err", err)
		line.Problem = &Problem{Code: failure.Of(err).Code, Message: err.Error()}
	}
	l.write(line)
}

// Flatten copies what a volume has of its parent. progress is told how far it is. When ctx ends the holder stops.
func (c *Client) Flatten(ctx context.Context, volume string, progress func(done, total int64)) (Volume, error) {
	v, err := c.flatten(ctx, volume, progress)
	var remote *failure.Remote
	if err == nil || errors.As(err, &remote) {
		return v, err // the holder's own words need no more
	}
	return v, fmt.Errorf("ask %s: %w", c.socket, err)
}

func (c *Client) flatten(ctx context.Context, volume string, progress func(done, total int64)) (Volume, error) {
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	// The holder says something every second: if it is silent for so long it is not there any more.
	silence := time.AfterFunc(c.limit, cancel)
	defer silence.Stop()
	gone := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	req, err := http.NewRequestWithContext(limited, http.MethodPost, "http://skerry"+volumePath(volume)+"/flatten", nil)
	if err != nil {
		return Volume{}, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Volume{}, gone(err)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {
		return Volume{}, fmt.Errorf("answer %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		silence.Reset(c.limit)
		var line FlattenLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return Volume{}, fmt.Errorf("decode the answer: %w", err)
		}
		switch {
		case line.Problem != nil:
			return Volume{}, failure.FromWire(line.Problem.Code, line.Problem.Message)
		case line.Volume != nil:
			progress(line.Done, line.Total)
			return *line.Volume, nil
		}
		progress(line.Done, line.Total)
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return Volume{}, gone(err)
}
