package fuse

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Users returns who uses a directory that is mounted, for people: processes, as far as this one may look into them, and loop devices.
func Users(dir string) []string {
	var users []string
	inside := func(link string) bool {
		to, err := os.Readlink(link)
		return err == nil && (to == dir || strings.HasPrefix(to, dir+"/"))
	}
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is good
	for _, link := range links {
		process := filepath.Dir(link)
		open, _ := filepath.Glob(process + "/fd/*")
		if inside(link) || inside(process+"/root") || slices.ContainsFunc(open, inside) {
			name, _ := os.ReadFile(process + "/comm") // it may have ended
			users = append(users, fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(process)))
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, loop := range loops {
		file, err := os.ReadFile(loop)
		if err == nil && strings.HasPrefix(string(file), dir+"/") {
			users = append(users, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(loop))))
		}
	}
	return users
}
