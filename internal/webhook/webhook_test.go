package webhook

import (
	"net/http"
	"testing"
	"time"
)

func TestSign(t *testing.T) {
	h := http.Header{}
	Sign(h, "s3cret", time.Unix(1700000000, 5), []byte(`{"a":1}`))
	// printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac s3cret
	const want = "sha256=1698a50bc74d1ff1db85c4e0a5297c2ad9fdba245d5737cdb789e4cc6e098940"
	if h.Get(TimestampHeader) != "1700000000" || h.Get(SignatureHeader) != want {
		t.Errorf("got %v", h)
	}
	h = http.Header{}
	Sign(h, "", time.Unix(1, 0), nil)
	if h.Get(TimestampHeader) != "1" || h.Get(SignatureHeader) != "" {
		t.Errorf("without a secret: %v", h)
	}
}
