package scan

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/webhook"
)

// Webhook asks an HTTP service: it gets the bill of materials (CycloneDX) by POST and answers 200 with what it found, as CycloneDX or SARIF.
//
// With a secret, the request is signed (internal/webhook). X-Neargate-Image and X-Neargate-Image-Digest name the image.
type Webhook struct {
	URL    string
	Secret string
	Client *http.Client // default: http.DefaultClient
	Clock  clock.Clock  // default: the machine's
}

// Version implements Scanner: what the service knows may change at any time.
func (*Webhook) Version() (string, error) { return "", nil }

// Scan implements Scanner.
func (w *Webhook) Scan(ctx context.Context, image Image, i *Inventory) (*Report, error) {
	body, err := i.Materials(image)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	now := time.Now
	if w.Clock != nil {
		now = w.Clock.Now
	}
	req.Header.Set("Content-Type", "application/vnd.cyclonedx+json; version=1.5")
	req.Header.Set("Accept", "application/vnd.cyclonedx+json, application/sarif+json")
	req.Header.Set("X-Neargate-Image", image.Name)
	req.Header.Set("X-Neargate-Image-Digest", image.Digest)
	webhook.Sign(req.Header, w.Secret, now(), body)
	client := w.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err // names the URL
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", w.URL, err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", w.URL, resp.Status)
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("%s answers more than %d bytes", w.URL, maxAnswer)
	}
	r, err := readReport(answer, i)
	if err != nil {
		return nil, fmt.Errorf("what %s answers is %w", w.URL, err)
	}
	return r, nil
}
