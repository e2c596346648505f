// Command probe is a small client for the tests: a program of its own, which
// can be copied elsewhere, be run as another user, and start keyfob.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// answer is what is printed, as one JSON object a line.
type answer struct {
	Status int    `json:"status"` // 0 when there was no answer
	Retry  string `json:"retry,omitempty"`
	Body   string `json:"body"`
	Err    string `json:"err,omitempty"`
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: probe imds URL | get URL [HEADER VALUE] | put URL HEADER VALUE | control SOCKET PROFILE ENDPOINT | read FILE | run PROGRAM … | serve BYTES")
		os.Exit(2)
	}
	a := os.Args[2:]
	switch os.Args[1] {
	case "imds":
		show(imds(a[0]))
	case "get":
		show(ask("GET", a[0], a[1:]))
	case "put":
		show(ask("PUT", a[0], a[1:]))
	case "control":
		show(control(a[0], a[1], a[2]))
	case "read":
		b, err := os.ReadFile(a[0])
		show(answer{Body: string(b), Err: text(err)})
	case "run":
		cmd := exec.Command(a[0], a[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err := cmd.Run()
		if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
			os.Exit(failed.ExitCode())
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(126)
		}
	case "serve":
		fmt.Fprintln(os.Stderr, serve(a[0]))
		os.Exit(1)
	default:
		os.Exit(2)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func show(a answer) { _ = json.NewEncoder(os.Stdout).Encode(a) }

var client = http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{Proxy: nil}}

func ask(method, url string, header []string) answer {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return answer{Err: err.Error()}
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{Err: err.Error()}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{Status: resp.StatusCode, Retry: resp.Header.Get("Retry-After"), Body: string(b), Err: text(err)}
}

// imds asks for a token, the role and its credentials over one connection;
// what it returns is the last answer.
func imds(base string) answer {
	a := ask("PUT", base+"/latest/api/token", []string{"X-aws-ec2-metadata-token-ttl-seconds", "60"})
	if a.Status != 200 {
		return a
	}
	token := []string{"X-aws-ec2-metadata-token", a.Body}
	const list = "/latest/meta-data/iam/security-credentials/"
	if a = ask("GET", base+list, token); a.Status != 200 {
		return a
	}
	return ask("GET", base+list+a.Body, token)
}

// control asks on the control socket for a profile's credentials, as keyfob
// would in an environment with this AWS_ENDPOINT_URL.
func control(socket, profile, endpoint string) answer {
	c, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return answer{Err: err.Error()}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = fmt.Fprintf(c, "{\"keyfob\":1}\n{\"id\":1,\"method\":\"credentials\",\"params\":{\"profile\":%q,\"named\":true,\"env\":{\"AWS_ENDPOINT_URL\":%q},\"via\":\"credential-process\"}}\n", profile, endpoint)
	r := bufio.NewReader(c)
	a := answer{Err: text(err)}
	for {
		line, err := r.ReadString('\n')
		a.Body += line
		if err != nil || len(a.Body) > len(line) {
			return a
		}
	}
}

// serve is what the metadata endpoint is measured against: package net/http
// with a fixed body, the headers of a metadata answer, and no checks. It
// prints its address and ends when its standard input does.
func serve(bytes string) error {
	n, err := strconv.Atoi(bytes)
	if err != nil {
		return err
	}
	body := []byte(strings.Repeat("x", n))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/plain")
		h.Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21599")
		h.Set("Content-Length", bytes)
		_, _ = w.Write(body)
	}))
}
