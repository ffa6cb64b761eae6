package trust

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec
	"google.golang.org/grpc/mem"
)

// aside decodes what is longer than shallow on a stack of its own, which ends with it. Decoding messages in messages takes the stack of whoever receives
// to 8 kB, and it stays so: with each of thousands of hosts there is one who waits for what comes.
type aside struct{ encoding.CodecV2 }

// shallow is more than heartbeats and acknowledgements take, which come most often and have nothing deep.
const shallow = 32

func newAside() aside { return aside{encoding.GetCodecV2("proto")} }

// Unmarshal implements encoding.CodecV2.
func (c aside) Unmarshal(data mem.BufferSlice, v any) error {
	if data.Len() <= shallow {
		return c.CodecV2.Unmarshal(data, v)
	}
	done := make(chan error, 1)
	go func() { done <- c.CodecV2.Unmarshal(data, v) }()
	return <-done
}
