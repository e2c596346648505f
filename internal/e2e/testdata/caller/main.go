// Command caller speaks the control protocol without manners: it sends what it
// is told to, and floods.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) == 5 && os.Args[1] == "flood" {
		n, _ := strconv.Atoi(os.Args[3])
		d, _ := time.ParseDuration(os.Args[4])
		flood(os.Args[2], n, d)
		return
	}
	if len(os.Args) == 4 && os.Args[1] == "serve" {
		serve(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) < 4 || len(os.Args)%2 != 0 {
		fmt.Fprintln(os.Stderr, "usage: caller SOCKET METHOD PARAMS [METHOD PARAMS …] | caller flood SOCKET CONNECTIONS DURATION | caller serve SOCKET REPLY")
		os.Exit(2)
	}
	if err := call(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// call makes calls over one connection and prints what is replied to each.
func call(socket string, words []string) error {
	c, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(c)
	if _, err := fmt.Fprint(c, "{\"keyfob\":1}\n"); err != nil {
		return err
	}
	for i := 0; i < len(words); i += 2 {
		if _, err := fmt.Fprintf(c, "{\"id\":%d,\"method\":%q,\"params\":%s}\n", i/2+1, words[i], words[i+1]); err != nil {
			return err
		}
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			if strings.HasPrefix(line, "{\"keyfob\"") {
				continue
			}
			fmt.Print(line)
			if strings.Contains(line, "\"result\"") || strings.Contains(line, "\"error\"") {
				break
			}
		}
	}
	return nil
}

// flood holds as many connections as it gets, and makes others all along.
func flood(socket string, n int, d time.Duration) {
	var held []net.Conn
	opened, ends := 0, time.Now().Add(d)
	for time.Now().Before(ends) {
		c, err := net.DialTimeout("unix", socket, time.Second)
		if err != nil {
			continue
		}
		opened++
		if len(held) < n {
			held = append(held, c)
			continue
		}
		_ = c.Close()
	}
	fmt.Println(opened)
}

// serve squats a socket: it answers whoever asks with a reply of its own, and
// prints what it was sent.
func serve(socket, reply string) {
	l, err := net.Listen("unix", socket)
	if err == nil {
		err = os.Chmod(socket, 0o777)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		b := make([]byte, 64<<10)
		k, _ := c.Read(b)
		if k > 0 {
			fmt.Printf("%q\n", b[:k])
		}
		_, _ = fmt.Fprintf(c, "{\"keyfob\":1}\n%s\n", reply)
		_ = c.Close()
	}
}
