package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// ErrPoolURL says that a pool is not named as it has to be; the error says how.
var ErrPoolURL = errors.New("cannot be a pool")

// ErrUnknownPool says that no pool of that name is configured.
var ErrUnknownPool = errors.New("no such pool is configured")

// Pool says where a pool is.
type Pool struct {
	// Scheme names the kind of storage: "file".
	Scheme string
	// Path is the absolute path of the pool's directory.
	Path string
	// Default says that nobody chose this pool: it is the default local one.
	Default bool
	// Trash is for how long rm keeps a volume in the trash; 0: not at all.
	Trash time.Duration
}

// String returns the pool's URL.
func (p Pool) String() string { return p.Scheme + "://" + (&url.URL{Path: p.Path}).EscapedPath() }

// ChoosePool returns the pool that the flag says, else the variable SKERRY_POOL, else the configuration, else the default
// local pool.
func ChoosePool(flag string, c Config, env Environment) (Pool, error) {
	for _, chosen := range []struct{ value, what string }{
		{flag, "pool"}, // or what the name of a volume began with
		{env.Getenv("SKERRY_POOL"), "pool of SKERRY_POOL"},
		{c.Pool, "pool of configuration"},
	} {
		if chosen.value == "" {
			continue
		}
		p, err := c.find(chosen.value)
		if err != nil {
			return Pool{}, fmt.Errorf("%s %w", chosen.what, err)
		}
		return p, nil
	}
	if env.Root {
		return c.known(Pool{Scheme: "file", Path: "/var/lib/skerry", Default: true})
	}
	dir := env.dir("XDG_DATA_HOME", ".local/share")
	if dir == "" {
		return Pool{}, errors.New("no home directory for the default pool: choose one with --pool")
	}
	return c.known(Pool{Scheme: "file", Path: filepath.Join(dir, "skerry"), Default: true})
}

// pool returns what the configuration says of a pool.
func (c PoolConfig) pool() (Pool, error) {
	p, err := parseURL(c.URL)
	if err != nil {
		return Pool{}, fmt.Errorf("url: %w", err)
	}
	if c.Trash != "" {
		if p.Trash, err = ParseTrash(c.Trash); err != nil {
			return Pool{}, fmt.Errorf("trash: %w", err)
		}
	}
	return p, nil
}

// find reads a name, a path or a URL.
func (c Config) find(s string) (Pool, error) {
	if pool, ok := c.Pools[s]; ok {
		return pool.pool()
	}
	var p Pool
	var err error
	switch {
	case strings.Contains(s, "://"):
		p, err = parseURL(s)
	case strings.ContainsRune(s, '/') || s == "." || s == "..":
		p.Scheme = "file"
		p.Path, err = filepath.Abs(s)
	default:
		return Pool{}, fmt.Errorf("%q: %w; name it in the configuration, or give a path such as ./%s", s, ErrUnknownPool, s)
	}
	if err != nil {
		return Pool{}, err
	}
	return c.known(p)
}

// known adds what the configuration says of a pool to one that was not chosen by its name: the longest time in the trash, if
// several names stand for it.
func (c Config) known(p Pool) (Pool, error) {
	for _, other := range c.Pools {
		same, err := other.pool()
		if err != nil {
			return Pool{}, err
		}
		if same.Scheme == p.Scheme && same.Path == p.Path {
			p.Trash = max(p.Trash, same.Trash)
		}
	}
	return p, nil
}

// parseURL reads a URL or an absolute path.
func parseURL(s string) (Pool, error) {
	if filepath.IsAbs(s) {
		return Pool{Scheme: "file", Path: filepath.Clean(s)}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return Pool{}, err
	}
	switch u.Scheme {
	case "file":
	case "nfs", "rados":
		return Pool{}, fmt.Errorf("%q: pools of the kind %s are not supported by this version; use file:///path: %w", s, u.Scheme, ErrPoolURL)
	default:
		return Pool{}, fmt.Errorf("%q: want file:///path or an absolute path: %w", s, ErrPoolURL)
	}
	if u.Host != "" && u.Host != "localhost" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !filepath.IsAbs(u.Path) {
		return Pool{}, fmt.Errorf("%q: want file:///path, with three slashes and nothing behind the path", s)
	}
	return Pool{Scheme: "file", Path: filepath.Clean(u.Path)}, nil
}
