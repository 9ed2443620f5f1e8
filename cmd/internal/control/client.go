package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"skerry/cmd/internal/failure"
)

// ErrGone says that nobody answers on a control socket: its process has ended, or it does not answer in time.
var ErrGone = errors.New("no answer on the control socket")

// Client calls the process behind a control socket. It may be used concurrently.
type Client struct {
	socket string
	http   http.Client
	limit  time.Duration
}

const (
	dialTime  = 2 * time.Second
	aliveTime = 3 * time.Second
	// CallTime is how long a call may take. A snapshot waits for the writes in flight, which have 30 s.
	CallTime = 45 * time.Second
)

// NewClient returns a client of the socket at path. Calls end after limit, or CallTime if that is 0.
func NewClient(path string, limit time.Duration) *Client {
	if limit <= 0 {
		limit = CallTime
	}
	d := net.Dialer{Timeout: dialTime}
	return &Client{socket: path, limit: limit, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 16 << 10,
	}}}
}

// Process describes the process. It fails with ErrGone within a few seconds if the process does not answer.
func (c *Client) Process(ctx context.Context) (Process, error) {
	var p Process
	err := c.callWithin(ctx, min(c.limit, aliveTime), http.MethodGet, "/v1/process", nil, &p)
	return p, err
}

// Volumes returns the names of the volumes that the process holds.
func (c *Client) Volumes(ctx context.Context) ([]string, error) {
	var v Volumes
	err := c.call(ctx, http.MethodGet, "/v1/volumes", nil, &v)
	return v.Volumes, err
}

// Info describes a volume.
func (c *Client) Info(ctx context.Context, volume string) (Volume, error) {
	var v Volume
	err := c.call(ctx, http.MethodGet, volumePath(volume), nil, &v)
	return v, err
}

// Snapshot takes a snapshot.
func (c *Client) Snapshot(ctx context.Context, volume, snapshot string) (Snapshot, error) {
	var s Snapshot
	err := c.call(ctx, http.MethodPost, volumePath(volume)+"/snapshots", NewSnapshot{Name: snapshot}, &s)
	return s, err
}

// RemoveSnapshot removes a snapshot.
func (c *Client) RemoveSnapshot(ctx context.Context, volume, snapshot string) (Removal, error) {
	var r Removal
	err := c.call(ctx, http.MethodDelete, volumePath(volume)+"/snapshots/"+url.PathEscape(snapshot), nil, &r)
	return r, err
}

// SnapshotHidden takes a snapshot without a name.
func (c *Client) SnapshotHidden(ctx context.Context, volume string) (Hidden, error) {
	var h Hidden
	err := c.call(ctx, http.MethodPost, volumePath(volume)+"/hidden", nil, &h)
	return h, err
}

// RemoveHidden removes a snapshot that SnapshotHidden took.
func (c *Client) RemoveHidden(ctx context.Context, volume string, h Hidden) error {
	return c.call(ctx, http.MethodDelete, volumePath(volume)+"/hidden/"+strconv.FormatUint(h.Serial, 10), nil, &Hidden{})
}

// Clone makes the volume name, which begins as the given one; size 0 is that one's size.
func (c *Client) Clone(ctx context.Context, volume, name string, size int64) (Volume, error) {
	var v Volume
	err := c.call(ctx, http.MethodPost, volumePath(volume)+"/clones", NewClone{Name: name, Size: size}, &v)
	return v, err
}

// Pin makes a pin on a hidden snapshot of a volume, which keeps it for a time.
func (c *Client) Pin(ctx context.Context, volume string, keep time.Duration) (Pin, error) {
	var p Pin
	err := c.call(ctx, http.MethodPost, volumePath(volume)+"/pins", NewPin{Seconds: int64(keep / time.Second)}, &p)
	return p, err
}

// Resize gives a volume another size.
func (c *Client) Resize(ctx context.Context, volume string, size NewSize) (Volume, error) {
	var v Volume
	err := c.call(ctx, http.MethodPost, volumePath(volume)+"/size", size, &v)
	return v, err
}

func volumePath(volume string) string { return "/v1/volumes/" + url.PathEscape(volume) }

// call sends in as the body, if it is not nil, and decodes the answer into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	return c.callWithin(ctx, c.limit, method, path, in, out)
}

func (c *Client) callWithin(ctx context.Context, limit time.Duration, method, path string, in, out any) error {
	err := c.exchange(ctx, limit, method, path, in, out)
	var remote *failure.Remote
	if err == nil || errors.As(err, &remote) {
		return err // the holder's own words need no more
	}
	return fmt.Errorf("ask %s: %w", c.socket, err)
}

func (c *Client) exchange(ctx context.Context, limit time.Duration, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, method, "http://skerry"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("answer has more than %d bytes", maxAnswer)
	}
	if resp.StatusCode >= 400 {
		var p Problem
		if err := json.Unmarshal(b, &p); err != nil || p.Message == "" {
			return fmt.Errorf("answer %s", resp.Status)
		}
		return failure.FromWire(p.Code, p.Message)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}
