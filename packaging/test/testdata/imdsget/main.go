// Command imdsget asks a metadata endpoint as SDKs do and prints the HTTP
// code, or the credentials' access key id: `imdsget ADDRESS [PROFILE'S ROLE]`.
// The tests run it where there is no curl whose sockets can be identified:
// as a Windows program under wine.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: imdsget ADDRESS [ROLE]")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "imdsget:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	client := &http.Client{Timeout: time.Minute}
	base := "http://" + args[0] + "/latest/"
	ask := func(method, path string, header, value string) (int, string, error) {
		r, err := http.NewRequest(method, base+path, nil)
		if err != nil {
			return 0, "", err
		}
		r.Header.Set(header, value)
		answer, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		return answer.StatusCode, string(b), err
	}
	code, token, err := ask(http.MethodPut, "api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if err != nil {
		return err
	}
	if code != http.StatusOK || len(args) == 1 {
		fmt.Println(code)
		return nil
	}
	code, body, err := ask(http.MethodGet, "meta-data/iam/security-credentials/"+args[1], "X-aws-ec2-metadata-token", token)
	if err != nil {
		return err
	}
	var credentials struct{ AccessKeyId string }
	if err := json.Unmarshal([]byte(body), &credentials); err != nil {
		return fmt.Errorf("HTTP %d: %s", code, body)
	}
	fmt.Println(credentials.AccessKeyId)
	return nil
}
