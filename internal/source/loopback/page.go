package loopback

import (
	"net/http"
	"strconv"
)

// The pages say nothing of the request and load nothing.
const (
	donePage    = "keyfob has the browser's answer and finishes the sign-in. You can close this page."
	deniedPage  = "The sign-in was refused, and keyfob knows. You can close this page."
	failedPage  = "The sign-in failed. keyfob says why where you started it. You can close this page."
	latePage    = "This sign-in has been answered already. You can close this page."
	onPage      = "keyfob sends this browser on."
	refusedPage = "This is not an answer that keyfob waits for. Nothing was changed."
)

// page sends a whole page, so that the connection may be closed at once.
func page(rw http.ResponseWriter, status int, text string) {
	body := `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>keyfob</title></head><body><p>` + text + "</p></body></html>\n"
	h := rw.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	// No script, no icon, no frame: nothing can be fetched from or by it.
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	rw.WriteHeader(status)
	_, _ = rw.Write([]byte(body))
	_ = http.NewResponseController(rw).Flush()
}
