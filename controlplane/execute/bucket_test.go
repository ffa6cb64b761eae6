package execute

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/datachannel"
	"github.com/seed-2f228079/neargate/storage/s3"
	"github.com/seed-2f228079/neargate/storage/s3/s3test"
)

// TestSessionIsKeptInABucket: what the client is shown is an object when the session is over, in the store of the tests and in one that others have
// written.
func TestSessionIsKeptInABucket(t *testing.T) {
	t.Run("test", func(t *testing.T) { sessionInBucket(t, s3test.Start(t).URL) })
	t.Run("versitygw", func(t *testing.T) { sessionInBucket(t, s3test.StartVersity(t)) })
}

func sessionInBucket(t *testing.T, store string) {
	var encrypted string
	faults, address := s3test.Proxy(t, store)
	faults.Inject(func(r *http.Request) s3test.Fault {
		encrypted = r.Header.Get("X-Amz-Server-Side-Encryption")
		return s3test.Fault{}
	})
	b := &Buckets{Store: statetest.New(t, controlplane.Schema...), Client: func(bucket string) *s3.Client {
		c := s3test.Client(t, address).Config
		c.Bucket = bucket
		return s3.New(c)
	}}
	var asked []string
	var may error
	b.TaskMay = func(_ context.Context, role, task, action, resource string) error {
		asked = append(asked, role+" "+action+" "+resource)
		return may
	}
	_, err := b.Store.Update(t.Context(), func(tx *state.Tx) error {
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{Account: "000000000000", Region: "us-east-1", Family: "f", Revision: 1, DefinitionJson: []byte(`{"taskRoleArn":"arn:aws:iam::000000000000:role/app"}`)})
		controlplane.Tasks.Put(tx, proto.CloneOf(&controlplane.Task{Account: "000000000000", Region: "us-east-1", Cluster: "c", Id: "t", TaskDefinition: "f:1"}))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	run := func() (session string) {
		t.Helper()
		s := newSite(t)
		ended := make(chan struct{})
		s.KeepObject = func(ctx context.Context, task, session string, to *controlplane.SessionLog, c Content) error {
			defer close(ended)
			return b.Keep(ctx, task, session, to, c)
		}
		s.log = &controlplane.SessionLog{Bucket: s3test.Bucket, Prefix: "audit/exec/", Encrypted: true}
		begun := s.begin()
		u := s.connect(begun, datachannel.NonInteractive)
		<-s.node.asked
		for _, o := range []*agentapi.ExecOutput{{Output: []byte("out\r")}, {Output: []byte("\nmore\rand more\r\n")}, {Errors: []byte("err\n\r")}, {Exit: &agentapi.ExecExit{}}} {
			s.node.outputs <- o
		}
		for m := range u.got {
			if m.Type == datachannel.ChannelClosed {
				break
			}
		}
		advance(s, 0, ended)
		return *begun.SessionId
	}
	session := run()
	key := "audit/exec/" + session + ".log"
	object, _, err := s3test.Client(t, store).Get(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	if text, err := io.ReadAll(object); err != nil || string(text) != "out\nmore\rand more\nerr\n\r" {
		t.Errorf("it is %q, %v", text, err)
	}
	if len(asked) != 1 || asked[0] != "arn:aws:iam::000000000000:role/app s3:PutObject arn:aws:s3:::"+s3test.Bucket+"/"+key || encrypted != "AES256" {
		t.Errorf("asked %q, encrypted %q", asked, encrypted)
	}
	may = errors.New("no")
	session = run()
	if _, err := s3test.Client(t, store).Head(t.Context(), "audit/exec/"+session+".log"); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("where the role may not: %v", err)
	}
	if err := b.Keep(t.Context(), "gone", "s", &controlplane.SessionLog{Bucket: s3test.Bucket}, Content{}); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("of a task that is gone: %v", err)
	}
}

// TestSpoolIsBounded: what is too much is counted, and said at the end.
func TestSpoolIsBounded(t *testing.T) {
	s, err := newSpool()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.size = maxSpool - 3 // as if it had been written
	s.add([]byte("abcdef"))
	s.add([]byte("gh"))
	c, err := s.content()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200)
	n, _ := c.ReadAt(b, 0)
	if got := string(b[:n]); got != "abc\n[5 bytes of output are missing here: a session's log holds 268435456]\n" {
		t.Errorf("it is %q", got)
	}
}
