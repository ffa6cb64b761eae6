package trust

import (
	"strings"
	"testing"

	healthapi "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Short and long messages are decoded alike, and what is no message is an error of the call.
func TestMessagesAreDecodedAside(t *testing.T) {
	c := newAside()
	for _, n := range []int{0, shallow / 2, shallow, 100 * shallow} {
		sent := &healthapi.HealthCheckRequest{Service: strings.Repeat("s", n)}
		data, err := c.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		got := &healthapi.HealthCheckRequest{}
		if err := c.Unmarshal(data, got); err != nil || !proto.Equal(got, sent) {
			t.Errorf("%d: %v, %v", n, got, err)
		}
		if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(strings.Repeat("\xff", n+1))}, got); err == nil {
			t.Errorf("%d: nonsense was decoded to %v", n, got)
		}
	}
}
