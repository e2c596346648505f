package imds

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// maxUserData is how much user data is served, in bytes. EC2 has 16 KiB;
// what a file has beyond that is its owner's affair, up to a point.
const maxUserData = 1 << 20

var typeBytes = []string{"application/octet-stream"}

// readUserData reads the file afresh, so that an edit shows at once.
func readUserData(name string) (data []byte, modified time.Time, err error) {
	info, err := os.Stat(name) // before it is opened: a pipe would wait for its writer
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("cannot read user data: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, time.Time{}, fmt.Errorf("cannot read user data: %s is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("cannot read user data: %w", err)
	}
	data, err = io.ReadAll(io.LimitReader(f, maxUserData+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, time.Time{}, fmt.Errorf("cannot read user data: %w", err)
	}
	if len(data) > maxUserData {
		return nil, time.Time{}, fmt.Errorf("cannot serve user data: %s has more than %d bytes", name, maxUserData)
	}
	return data, info.ModTime(), nil
}

// serveBytes answers with data, or the part of it that is asked for: user
// data is the one thing that EC2 says it serves in ranges.
func serveBytes(x *exchange, data []byte, modified time.Time) {
	http.ServeContent(x.w, x.r, "", modified, bytes.NewReader(data))
}
