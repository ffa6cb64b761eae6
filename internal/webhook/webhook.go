// Package webhook signs the requests that Neargate sends to services of others.
//
// X-Neargate-Signature is "sha256=" and the HMAC in hexadecimal, by the secret that both know, of X-Neargate-Timestamp (seconds since 1970), a
// dot, and the body. Who checks it refuses old timestamps.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The headers.
const (
	TimestampHeader = "X-Neargate-Timestamp"
	SignatureHeader = "X-Neargate-Signature"
)

// Sign sets the headers of a request with this body. Without a secret there is no signature.
func Sign(h http.Header, secret string, now time.Time, body []byte) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.Set(TimestampHeader, timestamp)
	if secret == "" {
		return
	}
	mac := hmac.New(sha256.New, []byte(secret))
	io.WriteString(mac, timestamp+".")
	mac.Write(body)
	h.Set(SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
}
