// Package systemd tests the units of this directory: systemd-analyze reads them, and a guest runs them with the program.
package systemd
