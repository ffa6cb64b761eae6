// Package sdkhttp has the AWS SDK for Go keep the connections of its calls.
//
// The SDK closes a request's body as soon as the answer's head is there. Its bodies are io.WriterTo, and one that is closed returns io.EOF from
// WriteTo as if that were an error. net/http looks at the end of a request whether the body has more than was announced; where the answer was
// faster than that, it takes io.EOF for a failed write and closes the connection, under whoever still reads the answer. Of servers that are far
// away nobody notices; of one on the same host every three hundredth call failed, or was made again after the SDK's pause.
package sdkhttp

import (
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// New sends by c; nil: as the SDK does by itself.
func New(c aws.HTTPClient) aws.HTTPClient {
	if c == nil {
		c = awshttp.NewBuildableClient()
	}
	return client{c}
}

type client struct{ aws.HTTPClient }

// Do sends a request whose body can only be read.
func (c client) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.HTTPClient.Do(r)
}
