package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testEnv is an environment with directories of its own.
func testEnv(t *testing.T, vars map[string]string) Environment {
	t.Helper()
	dir := t.TempDir()
	e := Environment{System: filepath.Join(dir, "etc")}
	e.Getenv = func(k string) string {
		if k == "HOME" && vars[k] == "" {
			return filepath.Join(dir, "home")
		}
		return vars[k]
	}
	return e
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUsersFilePrevailsOverSystems(t *testing.T) {
	e := testEnv(t, nil)
	files := e.configFiles()
	write(t, files[0], "pool = \"a\"\n[pools.a]\nurl = \"file:///a\"\n[pools.b]\nurl = \"/b\"\n")
	write(t, files[1], "pool = \"b\"\n[pools.a]\nurl = \"/other\"\n")
	c, err := Load("", e)
	if err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{"": "file:///b", "a": "file:///other", "b": "file:///b"} {
		if p, err := ChoosePool(flag, c, e); err != nil || p.String() != want || p.Default {
			t.Errorf("pool %q: %v, %v, want %s", flag, p, err, want)
		}
	}
}

func TestNoFilesAreNoConfiguration(t *testing.T) {
	c, err := Load("", testEnv(t, nil))
	if err != nil || c.Pool != "" || len(c.Pools) != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestNamedFileMustBeThere(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "no"), testEnv(t, nil)); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestNamedFileTakesThePlaceOfTheOthers(t *testing.T) {
	e := testEnv(t, nil)
	write(t, e.configFiles()[0], "pool = \"/system\"\n")
	own := filepath.Join(t.TempDir(), "own.toml")
	write(t, own, "")
	if c, err := Load(own, e); err != nil || c.Pool != "" {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestBadConfigurationSaysWhat(t *testing.T) {
	for text, want := range map[string]string{
		"pools = 1":                                  "pools",
		"pol = \"x\"":                                "unknown key pol",
		"[pools.a]\nurl = \"/a\"\nsize = 1":          "unknown key pools.a.size",
		"[pools.a]\nurl = \"a\"":                     "pools.a",
		"[pools.a]\nurl = \"http://x/y\"":            "pools.a",
		"[pools.a]\nurl = \"/a\"\ntrash = \"-1h\"":   "7d",
		"[pools.a]\nurl = \"/a\"\ntrash = \"week\"":  "7d",
		"[pools.a]\nurl = \"/a\"\ntrash = 168":       "trash",
		"[pools.a]\nurl = \"/a\"\ntrash = \"9999d\"": "7d",
		"[pools.a]":                                "pools.a",
		"[pools.\"a/b\"]\nurl = \"/a\"":            "a/b",
		"[pools.a]\nurl = \"file:///a?x=1\"":       "three slashes",
		"pool = \"a\"\npool = \"b\"":               "pool",
		"[pools.a]\nurl = \"nfs:///mnt\"":          "not supported",
		"[pools.a]\nurl = \"rados:///vms\"":        "not supported",
		"[pools.a]\nurl = \"file://host/a\"":       "three slashes",
		"[pools.a]\nurl = \"file:///a\"\nurl = 1 ": "url",
	} {
		path := filepath.Join(t.TempDir(), "c.toml")
		write(t, path, text)
		if _, err := Load(path, testEnv(t, nil)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want it to name %q and the file", text, err, want)
		}
	}
}

func TestChoosePoolOrder(t *testing.T) {
	c := Config{Pool: "/config", Pools: map[string]PoolConfig{"fast": {URL: "/fast"}}}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		flag, env string
		config    Config
		root      bool
		vars      map[string]string
		want      string
		isDefault bool
	}{
		{flag: "/flag", env: "/env", config: c, want: "/flag"},
		{env: "/env", config: c, want: "/env"},
		{config: c, want: "/config"},
		{flag: "fast", want: "/fast", config: c},
		{flag: "./fast", config: c, want: filepath.Join(wd, "fast")},
		{flag: ".", config: c, want: wd},
		{flag: "file:///with%20space", want: "/with space"},
		{root: true, want: "/var/lib/skerry", isDefault: true},
		{vars: map[string]string{"XDG_DATA_HOME": "/data"}, want: "/data/skerry", isDefault: true},
		{vars: map[string]string{"HOME": "/home/u", "XDG_DATA_HOME": "relative"}, want: "/home/u/.local/share/skerry", isDefault: true},
	} {
		vars := map[string]string{"SKERRY_POOL": tt.env}
		for k, v := range tt.vars {
			vars[k] = v
		}
		e := testEnv(t, vars)
		e.Root = tt.root
		p, err := ChoosePool(tt.flag, tt.config, e)
		if err != nil || p.Path != tt.want || p.Default != tt.isDefault || p.Scheme != "file" {
			t.Errorf("flag %q, env %q: %+v, %v, want %s", tt.flag, tt.env, p, err, tt.want)
		}
	}
}

func TestTrashOfAPoolHoldsHoweverItIsNamed(t *testing.T) {
	c, err := parse("[pools.a]\nurl = \"/a\"\ntrash = \"168h\"\n[pools.b]\nurl = \"file:///a\"\ntrash = \"1h\"\n[pools.c]\nurl = \"/var/lib/skerry\"\ntrash = \"2d\"\n")
	if err != nil {
		t.Fatal(err)
	}
	e := testEnv(t, nil)
	e.Root = true
	for flag, want := range map[string]time.Duration{"a": 168 * time.Hour, "b": time.Hour, "/a/": 168 * time.Hour, "file:///a": 168 * time.Hour, "/x": 0, "": 48 * time.Hour} {
		if p, err := ChoosePool(flag, c, e); err != nil || p.Trash != want {
			t.Errorf("pool %q: %+v, %v, want %v", flag, p, err, want)
		}
	}
}

func TestChoosePoolRefuses(t *testing.T) {
	e := testEnv(t, nil)
	if _, err := ChoosePool("nowhere", Config{}, e); !errors.Is(err, ErrUnknownPool) {
		t.Error(err)
	}
	for _, s := range []string{"nfs:///mnt/x", "rados:///p", "file://", "file:relative", "http://a/b", "file:///a#b", "file://u@/a", "://"} {
		if p, err := ChoosePool(s, Config{}, e); err == nil {
			t.Errorf("%q: %+v, want an error", s, p)
		}
	}
}

func TestPoolStringReadsBack(t *testing.T) {
	for _, path := range []string{"/a", "/with space", "/per%cent", "/ü"} {
		p := Pool{Scheme: "file", Path: path}
		if back, err := parseURL(p.String()); err != nil || back != p {
			t.Errorf("%s: %+v, %v", p, back, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("pool = \"a\"\n[pools.a]\nurl = \"file:///a\"\n")
	f.Add("[pools]\na.url = '/x'")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(text)
		if err != nil {
			return
		}
		for name := range c.Pools {
			if p, err := c.find(name); err != nil || !filepath.IsAbs(p.Path) {
				t.Fatalf("pool %q: %+v, %v", name, p, err)
			}
		}
	})
}
