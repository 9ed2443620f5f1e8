// Command guestctl is package nbd/kernel as a command, for scripts in the guest of package kerneltest:
//
//	guestctl attach ADDRESS EXPORT CONNECTIONS BACKEND REQUEST-TIMEOUT DEAD-TIMEOUT   prints the index
//	guestctl keep INDEX ADDRESS EXPORT CONNECTIONS BACKEND        says KEEPING, then REPLACED N
//	guestctl replace INDEX ADDRESS EXPORT CONNECTIONS BACKEND     once; says REPLACED N
//	guestctl resize INDEX SIZE BACKEND
//	guestctl detach|disconnect INDEX
//	guestctl look                                                 a line for each device
//
// ADDRESS is HOST:PORT or the path of a Unix socket.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"skerry/nbd/client"
	"skerry/nbd/kernel"
)

// redialPause is the time between two attempts to connect.
const redialPause = 200 * time.Millisecond

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guestctl:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	want := map[string]int{"attach": 6, "keep": 5, "replace": 5, "resize": 3, "detach": 1, "disconnect": 1, "look": 0}
	if n, known := want[first(args)]; !known || len(args) != n+1 {
		return fmt.Errorf("not understood: %q", args)
	}
	c, err := kernel.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	args, verb := args[1:], args[0]
	switch verb {
	case "attach":
		return attach(c, args)
	case "look":
		return look(c)
	}
	index, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	switch verb {
	case "keep":
		return keep(c, index, args[1:])
	case "replace":
		taken, err := replace(c, index, args[1:])
		if err == nil {
			fmt.Println("REPLACED", taken)
		}
		return err
	case "resize":
		size, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		_, err = c.Reconfigure(index, kernel.Change{Size: size, Backend: args[2]}, nil)
		return err
	case "detach":
		return c.Detach(index)
	}
	return c.Disconnect(index)
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func dial(address, export, n string) ([]*os.File, client.Export, error) {
	connections, err := strconv.Atoi(n)
	if err != nil {
		return nil, client.Export{}, err
	}
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	return kernel.Dial(context.Background(), network, address, export, connections)
}

func attach(c *kernel.Control, args []string) error {
	sockets, e, err := dial(args[0], args[1], args[2])
	if err != nil {
		return err
	}
	defer kernel.Close(sockets)
	config, err := kernel.ConfigFor(e)
	if err != nil {
		return err
	}
	config.Backend = args[3]
	if config.RequestTimeout, err = time.ParseDuration(args[4]); err != nil {
		return err
	}
	if config.DeadTimeout, err = time.ParseDuration(args[5]); err != nil {
		return err
	}
	index, err := c.Connect(config, sockets)
	if err != nil {
		return err
	}
	fmt.Println(index)
	return kernel.RaiseRequestSize(index, int64(e.MaxPayload))
}

// keep replaces connections that break, until it is killed. It says how many it replaced.
func keep(c *kernel.Control, index int, args []string) error {
	w, err := kernel.Watch()
	if err != nil {
		return err
	}
	defer w.Close()
	fmt.Println("KEEPING")
	for {
		broken, err := w.Next(context.Background())
		if err != nil {
			return err
		}
		if broken != index && broken != kernel.AnyIndex {
			continue
		}
		for {
			taken, err := replace(c, index, args)
			if err == nil {
				fmt.Println("REPLACED", taken)
				break
			}
			time.Sleep(redialPause)
		}
	}
}

func replace(c *kernel.Control, index int, args []string) (taken int, err error) {
	sockets, _, err := dial(args[0], args[1], args[2])
	if err != nil {
		return 0, err
	}
	defer kernel.Close(sockets)
	return c.Reconfigure(index, kernel.Change{Backend: args[3]}, sockets)
}

func look(c *kernel.Control) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	all, err := kernel.Devices()
	if err != nil {
		return err
	}
	for _, d := range all {
		connected, known := status[d.Index]
		fmt.Printf("%+v status=%t known=%t\n", d, connected, known)
	}
	return nil
}
