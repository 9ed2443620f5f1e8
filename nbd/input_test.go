package nbd

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestOldestIsNotAfterWhatWasRead: what was sent while the reader was busy is as old as that.
func TestOldestIsNotAfterWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		var pool inputPool
		var in input
		in.open(server, &pool, func() {})
		next := func() {
			t.Helper()
			if _, err := in.next(1); err != nil {
				t.Fatal(err)
			}
		}
		send := func() { go client.Write([]byte{1}) }
		send()
		next()
		time.Sleep(time.Second)
		sent := time.Now()
		send()
		time.Sleep(10 * time.Second)
		next()
		if in.oldest().After(sent) {
			t.Error("what was sent 10 s ago seems newer")
		}
		send()
		next()
		if age := time.Since(in.oldest()); age > 0 {
			t.Errorf("what was sent just now may be %v old", age)
		}
		// Into a buffer of the caller's, too.
		sent = time.Now()
		send()
		time.Sleep(time.Minute)
		p := make([]byte, 1)
		if err := in.readFull(p); err != nil {
			t.Fatal(err)
		}
		if in.oldest().After(sent) || time.Since(in.asked[0]) > 0 {
			t.Error("a read past the buffer does not count")
		}
		in.close()
		client.Close()
		server.Close()
	})
}
