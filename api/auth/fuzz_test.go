package auth_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// No header and no query makes the verifier panic or believe.
func FuzzVerify(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/ecs/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "20150830T123600Z", "a=b")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fr%2Fs%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Signature=00")
	f.Add("AWS4-HMAC-SHA256 =,", "2015", "%zz")
	v := auth.NewVerifier(sessions{}, clock.NewFake(noon))
	f.Fuzz(func(t *testing.T, authorization, date, query string) {
		r := httptest.NewRequest("POST", "/", nil)
		r.URL = &url.URL{Path: "/", RawQuery: query}
		r.Header = http.Header{"Authorization": {authorization}, "X-Amz-Date": {date}}
		sig, err := auth.Parse(r)
		if err != nil || sig == nil {
			return
		}
		if who, err := v.Verify(t.Context(), r, sig, nil); err == nil {
			t.Errorf("believed %+v", who)
		}
	})
}
