package locking

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// Identity says who holds: a process on a host.
type Identity struct {
	Host   string   // host name, for people
	HostID [16]byte // of the host; the same as long as it is the same machine
	Boot   [16]byte // boot id of its kernel
	PID    int      // for people
	Socket string   // control socket of this process, "" if it has none
}

// machineKey keeps the host id from being the machine id, which is not to be shown (machine-id(5)).
const machineKey = "skerry host id"

// LocalIdentity returns the identity of this process, without a control socket. The host id is derived from the machine id; on
// a host that has none it is random, and so differs from process to process.
func LocalIdentity() (Identity, error) {
	id := Identity{PID: os.Getpid()}
	host, err := os.Hostname()
	if err != nil {
		return id, fmt.Errorf("find host name: %w", err)
	}
	id.Host = host
	if id.Boot, err = bootID(); err != nil {
		return id, err
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if m := strings.TrimSpace(string(machine)); err == nil && len(m) == 32 {
		sum := sha256.Sum256([]byte(machineKey + m))
		copy(id.HostID[:], sum[:])
		return id, nil
	}
	rand.Read(id.HostID[:]) // never fails, says its documentation
	return id, nil
}

// maxText is the longest text of a holder that a root stores, in bytes.
const maxText = 255

// bootID returns the boot id of the running kernel (random(4)).
func bootID() (id [16]byte, err error) {
	const file = "/proc/sys/kernel/random/boot_id"
	b, err := os.ReadFile(file)
	if err != nil {
		return id, fmt.Errorf("find boot id: %w", err)
	}
	digits := strings.ReplaceAll(strings.TrimSpace(string(b)), "-", "")
	if n, err := hex.Decode(id[:], []byte(digits[:min(len(digits), 2*len(id))])); err != nil || n != len(id) {
		return [16]byte{}, fmt.Errorf("find boot id: %s holds %q", file, b)
	}
	return id, nil
}
