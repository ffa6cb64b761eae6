package dispatcher

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
)

// FuzzSession: whatever a host sends, in whatever order, the server lives, other hosts are served, and other hosts' tasks are as they were.
func FuzzSession(f *testing.F) {
	frames := func(ups ...*agentapi.Up) (out []byte) {
		for _, up := range ups {
			b, err := proto.Marshal(up)
			if err != nil {
				f.Fatal(err)
			}
			out = append(binary.AppendUvarint(out, uint64(len(b))), b...)
		}
		return out
	}
	hello := &agentapi.Up{Body: &agentapi.Up_Hello{Hello: &agentapi.Hello{NodeId: "fuzz", Kinds: []agentapi.Kind{agentapi.Kind_ASSIGNMENTS}}}}
	report := func(tasks ...*agentapi.TaskStatus) *agentapi.Up {
		return &agentapi.Up{Body: &agentapi.Up_Status{Status: &agentapi.StatusReport{Tasks: tasks}}}
	}
	f.Add(frames(hello))
	f.Add(frames(hello, hello))
	f.Add(frames(hello, &agentapi.Up{Body: &agentapi.Up_Ack{Ack: &agentapi.Ack{Kind: 99, Revision: 1 << 63}}}, &agentapi.Up{}))
	f.Add(frames(hello, report(nil, &agentapi.TaskStatus{}, &agentapi.TaskStatus{TaskId: "no such task", State: 77, Epoch: 1 << 63}, &agentapi.TaskStatus{
		TaskId: "t", State: agentapi.TaskState_RUNNING, Containers: []*agentapi.ContainerStatus{nil, {State: -1}},
	})))
	f.Add(frames(report(), hello))
	f.Add(frames(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: &agentapi.Hello{NodeId: "fuzz", Cluster: "none", Kinds: []agentapi.Kind{0, 1, 1}}}}))
	f.Add(frames(hello, &agentapi.Up{Body: &agentapi.Up_Health{}}, &agentapi.Up{Body: &agentapi.Up_Drained{Drained: &agentapi.DrainReport{}}}))
	f.Add([]byte{0, 0, 200})

	f.Fuzz(func(t *testing.T, data []byte) {
		p := newPlane(t)
		p.Authorize = func(_ context.Context, node string) error {
			if node != "fuzz" && node != "good" {
				return errors.New("another's certificate")
			}
			return nil
		}
		task := p.task("elsewhere")
		was, _ := controlplane.TaskStatuses.Get(p.Store.View(), controlplane.Tasks.Key(task))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		client := agentapi.NewDispatcherClient(p.dial)
		stream, err := client.Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for len(data) > 0 {
			n, used := binary.Uvarint(data)
			if used <= 0 || n > uint64(len(data)-used) {
				break
			}
			up := &agentapi.Up{}
			if proto.Unmarshal(data[used:used+int(n)], up) == nil && stream.Send(up) != nil {
				break // the server has had enough
			}
			data = data[used+int(n):]
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		if ctx.Err() != nil {
			t.Fatalf("the session does not end: %v", err)
		}
		good, err := client.Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := good.Send(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: &agentapi.Hello{NodeId: "good", Kinds: []agentapi.Kind{agentapi.Kind_ASSIGNMENTS}}}}); err != nil {
			t.Fatal(err)
		}
		if down, err := good.Recv(); err != nil || down.GetWelcome() == nil {
			t.Fatalf("another host gets %v, %v", down, err)
		}
		if is, _ := controlplane.TaskStatuses.Get(p.Store.View(), controlplane.Tasks.Key(task)); !proto.Equal(is, was) {
			t.Fatalf("another host's task was %v and is %v", was, is)
		}
	})
}
