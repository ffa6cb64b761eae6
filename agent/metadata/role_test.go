package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

const secretID = "01234567-89ab-cdef-0123-456789abcdef"

// api is the cluster's, of which one answer is known.
type api struct {
	asked  *http.Request
	body   string
	status int
	answer string
}

func (a *api) ServeHTTP(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }

func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.status == 0 {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	b, _ := io.ReadAll(r.Body)
	a.asked, a.body = r, string(b)
	return &http.Response{StatusCode: a.status, Header: http.Header{"X-Amzn-Requestid": {"request-1"}}, Body: io.NopCloser(strings.NewReader(a.answer))}, nil
}

// withRole is a server whose one task has a role, or an error instead of its credentials. What it logs is in log.
func withRole(fails error) (s *Server, cluster *api, log *bytes.Buffer) {
	cluster, log = &api{}, &bytes.Buffer{}
	return New(Config{
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), API: cluster,
		Task:  func(id string, from netip.Addr) (Task, bool) { return example(), id == taskID },
		Stats: func(context.Context, string, string) (s runtime.Stats, err error) { return s, nil },
		Named: func(id string, from netip.Addr) (Task, error) {
			if id != secretID || from != netip.MustParseAddr(address) {
				return Task{}, ErrUnknown
			}
			return example(), nil
		},
		Credentials: func(_ context.Context, task string) (*agentapi.RoleCredentialsAnswer, error) {
			if fails != nil {
				return nil, fails
			}
			return &agentapi.RoleCredentialsAnswer{RoleArn: "arn:role", AccessKeyId: "ASIA" + task[:2], SecretAccessKey: "top-secret", SessionToken: "a-token",
				Expires: timestamppb.New(time.Date(2026, 1, 1, 6, 0, 0, 5, time.UTC))}, nil
		},
	}), cluster, log
}

func request(s *Server, method, path, from, body string, header ...string) (int, string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = from + ":40000"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestRoleCredentials(t *testing.T) {
	down := status.Error(codes.Unavailable, "no server")
	for _, c := range []struct {
		what, path, from string
		fails            error
		status           int
		want             string
	}{
		{"its own", "/v2/credentials/" + secretID, address, nil, 200, `{"RoleArn":"arn:role","AccessKeyId":"ASIA01","SecretAccessKey":"top-secret","Token":"a-token","Expiration":"2026-01-01T06:00:00Z"}`},
		{"another task", "/v2/credentials/" + secretID, "10.64.0.8", nil, 400, `{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}`},
		{"a wrong id", "/v2/credentials/x", address, nil, 400, `{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}`},
		{"no id", "/v2/credentials/", address, nil, 400, `{"code":"NoIdInRequest","message":"CredentialsV2Request: No Credential ID in the request","HTTPErrorCode":400}`},
		{"no role", "/v2/credentials/" + secretID, address, ErrUnknown, 400, `{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}`},
		{"no server", "/v2/credentials/" + secretID, address, down, 503, `{"code":"CredentialsUninitialized","message":"CredentialsV2Request: Credentials uninitialized for ID","HTTPErrorCode":503}`},
		{"a role that went", "/v2/credentials/" + secretID, address, status.Error(codes.PermissionDenied, "gone"), 400,
			`{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found: gone","HTTPErrorCode":400}`},
	} {
		s, _, log := withRole(c.fails)
		if code, body := request(s, "GET", c.path, c.from, ""); code != c.status || body != c.want {
			t.Errorf("%s: %d %s\nwant %d %s", c.what, code, body, c.status, c.want)
		}
		for _, secret := range []string{"top-secret", "a-token", secretID} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("%s: the log has %s: %s", c.what, secret, log)
			}
		}
	}
	s, _, _ := withRole(nil)
	if code, _ := request(s, "PUT", "/v2/credentials/"+secretID, address, ""); code != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", code)
	}
}

// Scale-in protection is what ECS says to the task's role.
func TestProtection(t *testing.T) {
	arn := example().Assignment.TaskArn
	state := "/api/" + secretID + "/task-protection/v1/state"
	for _, c := range []struct {
		what, method, body string
		status             int // of ECS; 0: it is not asked, or does not answer
		answer             string
		sent, want         string
		code               int
	}{
		{"set", "PUT", `{"ProtectionEnabled":true,"ExpiresInMinutes":60}`, 200, `{"protectedTasks":[{"taskArn":"` + arn + `","protectionEnabled":true,"expirationDate":1767250800.25}],"failures":[]}`,
			`Update {"cluster":"c","expiresInMinutes":60,"protectionEnabled":true,"tasks":["` + arn + `"]}`,
			`{"protection":{"ExpirationDate":"2026-01-01T07:00:00.25Z","ProtectionEnabled":true,"TaskArn":"` + arn + `"}}`, 200},
		{"taken back", "PUT", `{"ProtectionEnabled":false}`, 200, `{"protectedTasks":[{"taskArn":"` + arn + `","protectionEnabled":false}]}`,
			`Update {"cluster":"c","protectionEnabled":false,"tasks":["` + arn + `"]}`, `{"protection":{"ExpirationDate":null,"ProtectionEnabled":false,"TaskArn":"` + arn + `"}}`, 200},
		{"asked for", "GET", "", 200, `{"protectedTasks":[{"taskArn":"` + arn + `","protectionEnabled":false}]}`,
			`Get {"cluster":"c","tasks":["` + arn + `"]}`, `{"protection":{"ExpirationDate":null,"ProtectionEnabled":false,"TaskArn":"` + arn + `"}}`, 200},
		{"a failure", "GET", "", 200, `{"protectedTasks":[],"failures":[{"arn":"a","reason":"TASK_NOT_VALID","detail":"no service"}]}`,
			`Get {"cluster":"c","tasks":["` + arn + `"]}`, `{"failure":{"Arn":"a","Detail":"no service","Reason":"TASK_NOT_VALID"}}`, 200},
		{"refused", "GET", "", 400, `{"__type":"com.amazonaws#AccessDeniedException","message":"User is not authorized"}`,
			`Get {"cluster":"c","tasks":["` + arn + `"]}`, `{"requestID":"request-1","error":{"Arn":"` + arn + `","Code":"AccessDeniedException","Message":"User is not authorized"}}`, 400},
		{"not JSON", "PUT", `{`, 0, "", "", `{"error":{"Code":"InvalidParameterException","Message":"UpdateTaskProtection: failed to decode request"}}`, 400},
		{"an unknown field", "PUT", `{"ProtectionEnabled":true,"X":1}`, 0, "", "", `{"error":{"Code":"InvalidParameterException","Message":"UpdateTaskProtection: failed to decode request"}}`, 400},
		{"nothing said", "PUT", `{}`, 0, "", "", `{"error":{"Arn":"` + arn + `","Code":"InvalidParameterException","Message":"Invalid request: does not contain 'ProtectionEnabled' field"}}`, 400},
		{"nonsense from ECS", "GET", "", 200, `{}`, `Get {"cluster":"c","tasks":["` + arn + `"]}`, `{"error":{"Arn":"` + arn + `","Code":"ServerException","Message":"Unexpected error occurred"}}`, 500},
	} {
		s, cluster, log := withRole(nil)
		cluster.status, cluster.answer = c.status, c.answer
		code, body := request(s, c.method, state, address, c.body)
		if code != c.code || body != c.want {
			t.Errorf("%s: %d %s\nwant %d %s", c.what, code, body, c.code, c.want)
		}
		sent := ""
		if r := cluster.asked; r != nil {
			sent = strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonEC2ContainerServiceV20141113."), "TaskProtection") + " " + cluster.body
			if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=ASIA01/") || !strings.Contains(r.Header.Get("Authorization"), "/us-east-1/ecs/") || r.Header.Get("X-Amz-Security-Token") != "a-token" {
				t.Errorf("%s: signed %v", c.what, r.Header)
			}
		}
		if sent != c.sent {
			t.Errorf("%s: sent %s\nwant %s", c.what, sent, c.sent)
		}
		if strings.Contains(log.String(), "top-secret") {
			t.Error(log)
		}
	}
	s, _, _ := withRole(ErrUnknown)
	if code, body := request(s, "GET", state, address, ""); code != 403 || body != `{"error":{"Arn":"`+arn+`","Code":"AccessDeniedException","Message":"Invalid Request: no task IAM role credentials available for task"}}` {
		t.Errorf("without a role: %d %s", code, body)
	}
	if code, body := request(s, "GET", state, "10.64.0.8", ""); code != 404 || body != `{"error":{"Code":"ResourceNotFoundException","Message":"Failed to find a task for the request"}}` {
		t.Errorf("another task: %d %s", code, body)
	}
	if code, _ := request(s, "POST", state, address, ""); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
	if code, _ := request(s, "GET", "/api/"+secretID+"/else", address, ""); code != 404 {
		t.Errorf("something else: %d", code)
	}
	s, _, _ = withRole(errors.New("out of order"))
	if code, _ := request(s, "GET", state, address, ""); code != 500 {
		t.Errorf("without an answer about credentials: %d", code)
	}
}

// ECS that does not answer is waited for four seconds, whatever the program would.
func TestProtectionTimesOut(t *testing.T) {
	s, _, _ := withRole(nil)
	r := httptest.NewRequest("GET", "/api/"+secretID+"/task-protection/v1/state", nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	r.RemoteAddr = address + ":1"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r.WithContext(ctx))
	var answer protectionAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusGatewayTimeout || answer.Error.Code != "RequestCanceled" || answer.Error.Message != "Timed out calling ECS Task Protection API" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What is signed is the API's, whatever its path, and so is what nobody else answers.
func TestAPI(t *testing.T) {
	s, _, _ := withRole(nil)
	signed := []string{"Authorization", "AWS4-HMAC-SHA256 Credential=…"}
	for path, header := range map[string][]string{
		"/": nil, "/v2/apis": nil, "/v2/credentials/x": signed, "/v4/x": signed, "/api/x": signed, "/v2/credentialsx": nil, "/2015-03-31/functions": signed,
		"/v4/x?X-Amz-Signature=1": nil,
	} {
		if code, body := request(s, "POST", path, address, "", header...); code != http.StatusTeapot {
			t.Errorf("%s %v: %d %s", path, header, code, body)
		}
	}
	if code, _ := request(s, "GET", "/v2/credentials/"+secretID, address, "", "Authorization", "Bearer x"); code != 200 {
		t.Errorf("a token of the SDK's: %d", code)
	}
}
