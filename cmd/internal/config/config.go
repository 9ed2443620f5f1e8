package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
)

// ErrFile says that a file of the configuration is not as it has to be.
var ErrFile = errors.New("configuration")

// Config is what the configuration says.
type Config struct {
	// Pool is the pool to use if nothing else says which: a name, a path or a URL; empty: the default local pool.
	Pool string `toml:"pool"`
	// Pools are the named pools.
	Pools map[string]PoolConfig `toml:"pools"`
}

// PoolConfig is one named pool.
type PoolConfig struct {
	// URL says where the pool is: a URL or an absolute path.
	URL string `toml:"url"`
	// Trash says for how long rm keeps a volume in the trash, as ParseTrash reads it; empty: not at all.
	Trash string `toml:"trash"`
}

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// Load reads the file at path, or if that is empty the files of the system and of the user, which may be missing.
func Load(path string, env Environment) (Config, error) {
	if path != "" {
		return read(path)
	}
	var all Config
	for _, p := range env.configFiles() {
		c, err := read(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return Config{}, err
		}
		if c.Pool != "" {
			all.Pool = c.Pool
		}
		for name, pool := range c.Pools {
			if all.Pools == nil {
				all.Pools = map[string]PoolConfig{}
			}
			all.Pools[name] = pool
		}
	}
	return all, nil
}

func read(path string) (Config, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return Config{}, fmt.Errorf("%w %s: want a regular file of at most 1 MiB", ErrFile, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := parse(string(b))
	if err != nil {
		return Config{}, fmt.Errorf("%w %s: %w", ErrFile, path, err)
	}
	return c, nil
}

// parse decodes and checks the text of a configuration file.
func parse(text string) (Config, error) {
	var c Config
	meta, err := toml.Decode(text, &c)
	if err != nil {
		return Config{}, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Config{}, fmt.Errorf("unknown key %s; known are: pool, pools.NAME.url, pools.NAME.trash", unknown[0])
	}
	if kind := meta.Type("pools"); kind != "" && kind != "Hash" { // the decoder lets other types pass
		return Config{}, errors.New("pools: want tables, [pools.NAME]")
	}
	for name, pool := range c.Pools {
		if !validPoolName(name) {
			return Config{}, fmt.Errorf("pools.%s: a pool's name has letters, digits, dots and dashes", name)
		}
		if _, err := pool.pool(); err != nil {
			return Config{}, fmt.Errorf("pools.%s: %w", name, err)
		}
	}
	return c, nil
}

func validPoolName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.HasPrefix(s, ".") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}

// Environment is what the process's surroundings say.
type Environment struct {
	Root   bool                // the user is root
	Getenv func(string) string // os.Getenv
	System string              // directory of the system's configuration, /etc/skerry
}

// System returns the environment of this process.
func System() Environment {
	return Environment{Root: os.Geteuid() == 0, Getenv: os.Getenv, System: "/etc/skerry"}
}

func (e Environment) configFiles() []string {
	files := []string{filepath.Join(e.System, "config.toml")}
	if dir := e.dir("XDG_CONFIG_HOME", ".config"); dir != "" {
		files = append(files, filepath.Join(dir, "skerry", "config.toml"))
	}
	return files
}

// dir returns a directory of the XDG base directory specification: what the variable says if that is absolute,
// else a directory below the user's home; empty if there is no home.
func (e Environment) dir(variable, fallback string) string {
	if d := e.Getenv(variable); filepath.IsAbs(d) {
		return d
	}
	if home := e.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, fallback)
	}
	return ""
}
