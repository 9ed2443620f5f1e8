package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"skerry/cmd/internal/failure"
)

// Holds is what a process that holds volumes can do with them. Its methods may be called concurrently.
type Holds interface {
	// Process describes the process itself. It is quick whatever the storage does.
	Process() Process
	// Names returns the names of the volumes that the process holds, sorted.
	Names(ctx context.Context) ([]string, error)
	// Info describes a volume.
	Info(ctx context.Context, volume string) (Volume, error)
	// Snapshot takes a snapshot of a volume that is held.
	Snapshot(ctx context.Context, volume, snapshot string) (Snapshot, error)
	// RemoveSnapshot removes a snapshot of a volume that is held.
	RemoveSnapshot(ctx context.Context, volume, snapshot string) (Removal, error)
	// SnapshotHidden takes a snapshot without a name of a volume that is held, for one who reads it and removes it then.
	SnapshotHidden(ctx context.Context, volume string) (Hidden, error)
	// RemoveHidden removes such a snapshot. One that is gone already is no error.
	RemoveHidden(ctx context.Context, volume string, h Hidden) error
	// Clone makes a volume that begins as a volume that is held; size 0 is that one's size.
	Clone(ctx context.Context, volume, name string, size int64) (Volume, error)
	// Pin takes a hidden snapshot of a volume that is held, and keeps it for a time by a pin.
	Pin(ctx context.Context, volume string, keep time.Duration) (Pin, error)
	// Resize gives a volume that is held another size.
	Resize(ctx context.Context, volume string, size NewSize) (Volume, error)
	// Flatten copies what a volume that is held has of its parent. progress is told bytes, until ctx ends.
	Flatten(ctx context.Context, volume string, progress func(done, total int64)) (Volume, error)
}

// Server answers the calls of the control socket.
type Server struct {
	http http.Server
	log  *slog.Logger

	ending context.Context // ends when Shutdown begins, for calls that take long
	end    context.CancelFunc
}

const (
	maxCalls   = 32               // at once; the others wait
	headerTime = 5 * time.Second  // for a request's header
	bodyTime   = 10 * time.Second // for a request
	idleTime   = time.Minute
)

// NewServer returns a server for what a process holds.
func NewServer(h Holds, log *slog.Logger) *Server {
	s := &Server{log: log}
	s.ending, s.end = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.Handle("GET /v1/process", s.call(http.StatusOK, func(*http.Request) (any, error) { return h.Process(), nil }))
	mux.Handle("GET /v1/volumes", s.call(http.StatusOK, func(r *http.Request) (any, error) {
		names, err := h.Names(r.Context())
		return Volumes{Volumes: append([]string{}, names...)}, err
	}))
	mux.Handle("GET /v1/volumes/{volume}", s.call(http.StatusOK, func(r *http.Request) (any, error) {
		return h.Info(r.Context(), r.PathValue("volume"))
	}))
	mux.Handle("POST /v1/volumes/{volume}/snapshots", s.call(http.StatusCreated, func(r *http.Request) (any, error) {
		var body NewSnapshot
		if err := decode(r, &body); err != nil {
			return nil, err
		}
		return h.Snapshot(r.Context(), r.PathValue("volume"), body.Name)
	}))
	mux.Handle("DELETE /v1/volumes/{volume}/snapshots/{snapshot}", s.call(http.StatusOK, func(r *http.Request) (any, error) {
		return h.RemoveSnapshot(r.Context(), r.PathValue("volume"), r.PathValue("snapshot"))
	}))
	mux.Handle("POST /v1/volumes/{volume}/hidden", s.call(http.StatusCreated, func(r *http.Request) (any, error) {
		return h.SnapshotHidden(r.Context(), r.PathValue("volume"))
	}))
	mux.Handle("DELETE /v1/volumes/{volume}/hidden/{serial}", s.call(http.StatusOK, func(r *http.Request) (any, error) {
		serial, err := strconv.ParseUint(r.PathValue("serial"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("serial: %w: %w", failure.ErrUsage, err)
		}
		return Hidden{}, h.RemoveHidden(r.Context(), r.PathValue("volume"), Hidden{Serial: serial})
	}))
	mux.Handle("POST /v1/volumes/{volume}/pins", s.call(http.StatusCreated, func(r *http.Request) (any, error) {
		var body NewPin
		if err := decode(r, &body); err != nil {
			return nil, err
		}
		if body.Seconds <= 0 || body.Seconds > maxPin {
			return nil, fmt.Errorf("pin for %d seconds: %w: want 1 to %d", body.Seconds, failure.ErrUsage, int64(maxPin))
		}
		return h.Pin(r.Context(), r.PathValue("volume"), time.Duration(body.Seconds)*time.Second)
	}))
	mux.Handle("POST /v1/volumes/{volume}/clones", s.call(http.StatusCreated, func(r *http.Request) (any, error) {
		var body NewClone
		if err := decode(r, &body); err != nil {
			return nil, err
		}
		return h.Clone(r.Context(), r.PathValue("volume"), body.Name, body.Size)
	}))
	mux.Handle("POST /v1/volumes/{volume}/size", s.call(http.StatusOK, func(r *http.Request) (any, error) {
		var body NewSize
		if err := decode(r, &body); err != nil {
			return nil, err
		}
		return h.Resize(r.Context(), r.PathValue("volume"), body)
	}))
	all := http.NewServeMux()
	all.Handle("/", bounded(mux))
	all.Handle("POST /v1/volumes/{volume}/flatten", s.flatten(h)) // has a bound of its own
	s.http = http.Server{
		Handler:           all,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       bodyTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers calls until Shutdown, then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// Shutdown stops listening, which removes the socket, and waits for the calls that run; those that
// have not ended when ctx does are cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.end()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("control socket: %w", err), s.http.Close())
	}
	return nil
}

// bounded lets only so many calls run at a time.
func bounded(h http.Handler) http.Handler {
	slots := make(chan struct{}, maxCalls)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
			h.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

func (s *Server) call(status int, do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := status
		v, err := do(r)
		if err != nil {
			class := failure.Of(err)
			s.log.Info("control call failed", "call", r.Method+" "+r.URL.Path, "err", err)
			v, code = Problem{Code: class.Code, Message: err.Error()}, statusOf(class)
		}
		b, err := json.Marshal(v)
		if err != nil {
			s.log.Error("control answer", "call", r.Method+" "+r.URL.Path, "err", err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write(b) // the caller has gone
	})
}

// statusOf returns the HTTP status for a class of errors. Clients go by the class; the status is for tools.
func statusOf(c failure.Class) int {
	switch c.Exit {
	case failure.ExitUsage:
		return http.StatusBadRequest
	case failure.ExitNotFound:
		return http.StatusNotFound
	case failure.ExitExists, failure.ExitInUse:
		return http.StatusConflict
	case failure.ExitHeld:
		return http.StatusLocked
	case failure.ExitUnavailable:
		return http.StatusServiceUnavailable
	case failure.ExitNoSpace:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("request body: %w: %w", failure.ErrUsage, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("request body: %w: more than one value", failure.ErrUsage)
	}
	return nil
}
