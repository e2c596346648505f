package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// otlpSink sends log records to an OpenTelemetry collector: OTLP 1 over HTTP
// in JSON (https://opentelemetry.io/docs/specs/otlp/#otlphttp).
type otlpSink struct {
	url      string
	resource []otlpAttribute
	version  string
	client   *http.Client
}

// NewOTLP returns a Sink to a collector's URL for logs, such as
// http://127.0.0.1:4318/v1/logs. version is keyfob's. It opens nothing.
func NewOTLP(url, version string) Sink {
	host, _ := os.Hostname()
	return &otlpSink{
		url: url, version: version,
		resource: []otlpAttribute{attribute("service.name", "keyfob"), attribute("service.version", version), attribute("host.name", host)},
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConns: 1, IdleConnTimeout: 30 * time.Second, DisableCompression: true},
			// Lines go where the settings say and nowhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Kind is otlp.
func (o *otlpSink) Kind() string { return "otlp" }

// Close closes the connection.
func (o *otlpSink) Close() { o.client.CloseIdleConnections() }

type otlpValue struct {
	StringValue string `json:"stringValue"`
}

type otlpAttribute struct {
	Key   string    `json:"key"`
	Value otlpValue `json:"value"`
}

func attribute(key, value string) otlpAttribute { return otlpAttribute{key, otlpValue{value}} }

type otlpRecord struct {
	Time       string          `json:"timeUnixNano"` // 64-bit numbers are strings in protobuf's JSON
	Observed   string          `json:"observedTimeUnixNano"`
	Severity   int             `json:"severityNumber"`
	Text       string          `json:"severityText"`
	Body       otlpValue       `json:"body"`
	Attributes []otlpAttribute `json:"attributes"`
}

// body is an ExportLogsServiceRequest.
func (o *otlpSink) body(lines []Line) ([]byte, error) {
	records := make([]otlpRecord, 0, len(lines))
	observed := strconv.FormatInt(time.Now().UnixNano(), 10)
	for _, l := range lines {
		r := otlpRecord{Time: strconv.FormatInt(l.Time.UnixNano(), 10), Observed: observed, Body: otlpValue{l.JSON},
			Attributes: []otlpAttribute{attribute("event.name", "keyfob.audit."+l.Event)}}
		// Of the log data model: INFO is 9, WARN 13, ERROR 17.
		switch severity(l.Event) {
		case 3:
			r.Severity, r.Text = 17, "ERROR"
		case 4:
			r.Severity, r.Text = 13, "WARN"
		default:
			r.Severity, r.Text = 9, "INFO"
		}
		records = append(records, r)
	}
	type scope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	type scopeLogs struct {
		Scope   scope        `json:"scope"`
		Records []otlpRecord `json:"logRecords"`
	}
	type resource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	type resourceLogs struct {
		Resource resource    `json:"resource"`
		Scopes   []scopeLogs `json:"scopeLogs"`
	}
	return json.Marshal(struct {
		Resources []resourceLogs `json:"resourceLogs"`
	}{[]resourceLogs{{resource{o.resource}, []scopeLogs{{scope{"keyfob/audit", o.version}, records}}}}})
}

// Send delivers the lines in one request.
func (o *otlpSink) Send(ctx context.Context, lines []Line) (sent, rejected int, err error) {
	body, err := o.body(lines)
	if err != nil {
		return len(lines), len(lines), nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, bytes.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "keyfob/"+o.version)
	resp, err := o.client.Do(req)
	if err != nil {
		return 0, 0, fmt.Errorf("cannot send to the OTLP collector: %w", err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return len(lines), refusedBy(answer, len(lines)), nil
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return 0, 0, &laterError{"cannot send to the OTLP collector: it answers " + resp.Status, after(resp.Header.Get("Retry-After"))}
	case code >= 400 && code < 500 && code != http.StatusUnauthorized && code != http.StatusForbidden && code != http.StatusNotFound && code != http.StatusRequestTimeout:
		return len(lines), len(lines), nil // it will never want these
	}
	// What its operator can mend.
	return 0, 0, errors.New("cannot send to the OTLP collector: it answers " + resp.Status)
}

// refusedBy reads how many records a partial success left out.
func refusedBy(answer []byte, most int) int {
	var a struct {
		PartialSuccess struct {
			Rejected json.RawMessage `json:"rejectedLogRecords"` // a string or a number
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &a) != nil {
		return 0
	}
	n, err := strconv.Atoi(string(bytes.Trim(a.PartialSuccess.Rejected, `"`)))
	if err != nil {
		return 0
	}
	return min(max(n, 0), most)
}

// after reads Retry-After, 0 where it says nothing.
func after(header string) time.Duration {
	if n, err := strconv.Atoi(header); err == nil && n > 0 {
		return time.Duration(min(n, 3600)) * time.Second
	}
	return 0
}
