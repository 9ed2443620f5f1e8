// Package service is how a process behaves as a service of systemd: it tells when it is ready and when it stops, answers the
// watchdog, and takes over the sockets on which systemd listens for it. Without systemd all of it does nothing.
//
// The protocols are those of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3).
package service
