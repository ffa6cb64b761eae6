package events

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/events/pattern"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/stream"
)

const secret = "a canary of a secret"

// receiver is a webhook's other end.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	got    chan Event // what was answered with 2xx

	mu     sync.Mutex
	status []int // of the next answers; then 200
	tries  int
	ids    []string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, got: make(chan Event, 100)}
	r.server = httptest.NewServer(http.HandlerFunc(r.take))
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) take(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var e Event
	if err != nil || json.Unmarshal(body, &e) != nil {
		r.t.Errorf("%v, got %s", err, body)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s.%s", req.Header.Get("X-Neargate-Timestamp"), body)
	if got, want := req.Header.Get("X-Neargate-Signature"), "sha256="+hex.EncodeToString(mac.Sum(nil)); got != want {
		r.t.Errorf("signed %s, want %s", got, want)
	}
	if req.Method != http.MethodPost || req.Header.Get("X-Neargate-Event-Id") != e.ID || req.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s %v of %s", req.Method, req.Header, e.ID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	r.ids = append(r.ids, e.ID)
	status := http.StatusOK
	if len(r.status) > 0 {
		status, r.status = r.status[0], r.status[1:]
	}
	if status == http.StatusFound {
		w.Header().Set("Location", r.server.URL+"/elsewhere")
	}
	w.WriteHeader(status)
	if status/100 == 2 {
		r.got <- e
	}
}

func (r *receiver) answer(status ...int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries
}

// lockedBuffer is a log that may be read meanwhile.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// call is a context of the account.
func (w *world) call() context.Context {
	return api.WithCall(w.t.Context(), &api.Call{Identity: api.Identity{Account: here.Account}, Region: here.Region})
}

func (w *world) hook(url, pattern string) *WebhookShape {
	w.t.Helper()
	shape, err := w.createWebhook(w.call(), &CreateEventWebhookInput{}, &NewWebhook{URL: url, Pattern: pattern, Secret: secret})
	if err != nil {
		w.t.Fatal(err)
	}
	return shape
}

func (w *world) shown(id string) *WebhookShape {
	w.t.Helper()
	shape, err := w.getWebhook(w.call(), &GetEventWebhookInput{ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return shape
}

// pass moves the clock on, step by step, until something is so.
func (w *world) pass(step time.Duration, until func() bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !until(); {
		if time.Now().After(end) {
			w.t.Fatal("it did not come to that within a minute")
		}
		w.Clock.(*clock.Fake).Advance(step)
		time.Sleep(time.Millisecond)
	}
}

func (w *world) saved(id string, is func(*WebhookShape) bool) {
	w.t.Helper()
	w.pass(time.Second, func() bool { return is(w.shown(id)) })
}

func TestWebhookGetsItsEventsInOrder(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	w.task("before", 1, agentapi.TaskState_RUNNING)
	h := w.hook(r.server.URL, `{"source":["aws.ecs"],"detail":{"lastStatus":["RUNNING"]}}`)
	if h.Secret != secret {
		t.Errorf("the answer has the secret %q", h.Secret)
	}
	w.put(&controlplane.TaskStatus{Account: "111111111111", Region: here.Region, Cluster: "c", Id: "foreign", Version: 1, Observed: agentapi.TaskState_RUNNING})
	for i := range 40 {
		w.task(fmt.Sprint("t", i), 1, agentapi.TaskState_PENDING)
		w.task(fmt.Sprint("t", i), 2, agentapi.TaskState_RUNNING)
	}
	for i := range 40 {
		w.expect(r.got, fmt.Sprintf("task/c/t%d map[lastStatus:RUNNING", i))
	}
	w.saved(h.ID, func(s *WebhookShape) bool { return s.Delivered == 40 })
	if s := w.shown(h.ID); s.Secret != "" || s.Dropped != 0 || s.LastError != "" || s.LastDelivered.IsZero() {
		t.Errorf("shown as %+v", s)
	}
	// A new process, or a new leader, goes on from the cursor.
	w.end()
	w.task("later", 1, agentapi.TaskState_RUNNING)
	w.run()
	w.expect(r.got, "task/c/later")
	if len(r.got) > 0 {
		t.Errorf("there is more: %s", line(<-r.got))
	}
}

func TestWebhookThatFailsIsTriedAgainInOrder(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	var logged lockedBuffer
	w.Log = slog.New(slog.NewTextHandler(&logged, nil))
	h := w.hook(r.server.URL+"/?token=in-the-url", "")
	r.answer(500, 302, 404)
	w.task("a", 1, agentapi.TaskState_RUNNING)
	w.task("b", 1, agentapi.TaskState_RUNNING)
	w.until(func() bool { return r.tried() == 1 })
	// The courier pauses 1 s, then 2 s, then 4 s, beside the tick of what saves progress.
	fake := w.Clock.(*clock.Fake)
	for n, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		w.until(func() bool { return fake.Waiters() >= 3 }) // of expire, of progress, and this
		fake.Advance(pause - time.Millisecond)
		w.until(func() bool { return fake.Waiters() >= 3 })
		if got := r.tried(); got != n+1 {
			t.Fatalf("%d requests before the pause of %v is over", got, pause)
		}
		fake.Advance(time.Millisecond)
		w.until(func() bool { return r.tried() > n+1 })
	}
	w.expect(r.got, "task/c/a", "task/c/b")
	if r.ids[0] != r.ids[3] || r.ids[0] == r.ids[4] || len(r.ids) != 5 {
		t.Errorf("ids %q", r.ids)
	}
	w.saved(h.ID, func(s *WebhookShape) bool { return s.Delivered == 2 && s.LastError == "" && !s.LastFailure.IsZero() })
	if text := logged.String(); !strings.Contains(text, h.ID) || strings.Contains(text, secret) || strings.Contains(text, "in-the-url") {
		t.Errorf("logged %s", text)
	}
}

// until waits without time passing.
func (w *world) until(is func() bool) {
	w.t.Helper()
	w.pass(0, is)
}

func TestWebhookEventIsDroppedWhenItIsTooOld(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	h := w.hook(r.server.URL, "")
	r.answer(slices.Repeat([]int{503}, 10000)...)
	w.task("a", 1, agentapi.TaskState_RUNNING)
	w.until(func() bool { return r.tried() == 1 })
	w.saved(h.ID, func(s *WebhookShape) bool { return s.LastError == "the answer is 503 Service Unavailable" })
	if s := w.shown(h.ID); s.Dropped != 0 || s.Delivered != 0 {
		t.Errorf("shown as %+v", s)
	}
	w.pass(10*time.Minute, func() bool { return w.shown(h.ID).Dropped == 1 })
	if tries := r.tried(); tries > 300 {
		t.Errorf("%d requests in a day", tries)
	}
	r.answer()
	w.task("b", 1, agentapi.TaskState_RUNNING)
	w.until(func() bool { return w.Clock.(*clock.Fake).Waiters() >= 3 }) // of expire, of progress, and of the courier, which has taken it up
	w.pass(time.Minute, func() bool { return len(r.got) == 1 })
	w.expect(r.got, "task/c/b")
}

// TestNewLeaderPassesOverWhatIsDoneWith: its stream may be told later of changes that the last leader has delivered.
func TestNewLeaderPassesOverWhatIsDoneWith(t *testing.T) {
	w := newWorld(t)
	w.end()
	w.task("a", 1, agentapi.TaskState_RUNNING)
	done := w.Store.Revision()
	w.task("b", 1, agentapi.TaskState_RUNNING)
	v := w.Store.View()
	list := slices.Collect(w.missed(&writer{}, v, done-1))
	if len(list) != 2 {
		t.Fatalf("missed %v", list)
	}
	c := &courier{Service: w.Service, hook: &Webhook{Account: here.Account, Region: here.Region}, from: done + 1,
		now: &WebhookProgress{Cursor: cursor(done+1, "")}}
	pos, err := w.position(&GetEventsInput{After: c.now.Cursor})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.keep(t.Context(), slices.Values(list), v.Revision()); err != nil {
		t.Fatal(err)
	}
	got, _, err := c.read(&pattern.Pattern{}, pos)
	late, _ := read(stream.Record{Data: list[1]})
	if err != nil || len(got) != 1 || got[0].event.ID != late.ID {
		t.Errorf("%v, read %v", err, got)
	}
}

func TestSlowWebhookDelaysNoOther(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-req.Context().Done():
		}
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(release) })
	one := w.hook(slow.URL, "")
	w.hook(r.server.URL, "")
	w.task("a", 1, agentapi.TaskState_RUNNING)
	<-arrived
	for i := range 20 {
		w.task(fmt.Sprint("t", i), 1, agentapi.TaskState_RUNNING)
	}
	w.expect(r.got, "task/c/a")
	for i := range 20 {
		w.expect(r.got, fmt.Sprint("task/c/t", i))
	}
	if len(arrived) > 0 {
		t.Error("a webhook has two requests at once")
	}
	// One that is deleted is not waited for.
	if _, err := w.deleteWebhook(w.call(), &DeleteEventWebhookInput{ID: one.ID}); err != nil {
		t.Fatal(err)
	}
	w.end()
}

func TestWebhookResources(t *testing.T) {
	w := newWorld(t)
	for field, in := range map[string]NewWebhook{
		"url:no URL": {URL: "ftp://host/"}, "url:user name": {URL: "https://u:p@host/"}, "url:link-local": {URL: "http://169.254.169.254/latest"},
		"url:metadata": {URL: "http://[fd00:ec2::254]/"}, "url:fragment": {URL: "https://host/#x"}, "url:longer": {URL: "https://host/" + strings.Repeat("x", maxURL)},
		"pattern:detail.a.wildcard is not supported": {URL: "https://host/", Pattern: `{"detail":{"a":[{"wildcard":"*"}]}}`},
		"secret:16 to 256":                           {URL: "https://host/", Secret: "short"},
	} {
		name, why, _ := strings.Cut(field, ":")
		_, err := w.createWebhook(w.call(), &CreateEventWebhookInput{}, &in)
		if err == nil || !strings.Contains(err.Error(), "Invalid parameter at '"+name+"'") || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", field, err)
		}
	}
	made, err := w.createWebhook(w.call(), &CreateEventWebhookInput{}, &NewWebhook{URL: "http://127.0.0.1:1/x"})
	if err != nil || len(made.Secret) != 64 {
		t.Fatalf("%+v, %v", made, err)
	}
	again, err := w.createWebhook(w.call(), &CreateEventWebhookInput{}, &NewWebhook{URL: "http://127.0.0.1:1/x", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	for h := range Webhooks.Scan(w.Store.View(), state.K()) {
		b, err := proto.Marshal(h)
		if err != nil || bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(made.Secret)) {
			t.Errorf("%v, the state has %q", err, b)
		}
	}
	list, err := w.listWebhooks(w.call(), &ListEventWebhooksInput{})
	if err != nil || len(list.Webhooks) != 2 || list.Webhooks[0].Secret+list.Webhooks[1].Secret != "" {
		t.Errorf("%+v, %v", list, err)
	}
	other := api.WithCall(t.Context(), &api.Call{Identity: api.Identity{Account: "111111111111"}, Region: here.Region})
	if list, err := w.listWebhooks(other, &ListEventWebhooksInput{}); err != nil || len(list.Webhooks) != 0 {
		t.Errorf("another account sees %+v, %v", list, err)
	}
	if _, err := w.deleteWebhook(other, &DeleteEventWebhookInput{ID: made.ID}); err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") {
		t.Error(err)
	}
	if gone, err := w.deleteWebhook(w.call(), &DeleteEventWebhookInput{ID: again.ID}); err != nil || gone.Secret != "" || gone.ID != again.ID {
		t.Errorf("%+v, %v", gone, err)
	}
	for range maxWebhooks - 1 {
		w.hook("http://127.0.0.1:1/x", "")
	}
	if _, err := w.createWebhook(w.call(), &CreateEventWebhookInput{}, &NewWebhook{URL: "http://127.0.0.1:1/x"}); err == nil || !strings.Contains(err.Error(), "LimitExceededException") {
		t.Error(err)
	}
}
