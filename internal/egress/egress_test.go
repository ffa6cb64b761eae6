package egress

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMetadataAddressesAreNotReached(t *testing.T) {
	client := &http.Client{Transport: Transport()}
	for _, host := range []string{"169.254.169.254", "[::ffff:169.254.170.2]", "[fe80::1]", "[fd00:ec2::254]", "100.100.100.200"} {
		_, err := client.Get("http://" + host + "/")
		if err == nil || !strings.Contains(err.Error(), "is a link-local address") && !strings.Contains(err.Error(), "of a metadata service") {
			t.Errorf("%s: %v", host, err)
		}
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
