package metadata

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// protectionWithin is how long ECS may take to answer.
const protectionWithin = 4 * time.Second

// protectionAnswer is what a container is told of its task's scale-in protection: one of the three.
type protectionAnswer struct {
	RequestID  string           `json:"requestID,omitempty"`
	Protection *protectedTask   `json:"protection,omitempty"`
	Failure    *taskFailure     `json:"failure,omitempty"`
	Error      *protectionError `json:"error,omitempty"`
}

type protectedTask struct {
	ExpirationDate    *time.Time // null: it is not protected
	ProtectionEnabled bool
	TaskArn           string
}

type taskFailure struct {
	Arn    string  `json:"Arn"`
	Detail *string `json:"Detail"`
	Reason string  `json:"Reason"`
}

type protectionError struct {
	Arn     string `json:"Arn,omitempty"`
	Code    string
	Message string
}

// protection answers GET and PUT /api/ID/task-protection/v1/state, with what ECS answers to the task's role: the container needs
// ecs:GetTaskProtection and ecs:UpdateTaskProtection.
func (s *Server) protection(w http.ResponseWriter, r *http.Request, rest string, from netip.Addr) {
	id, what, _ := strings.Cut(rest, "/")
	if what != "task-protection/v1/state" {
		fail(w, http.StatusNotFound, "404 page not found")
		return
	}
	refuse := func(answer int, arn, code, message string) {
		write(w, answer, protectionAnswer{Error: &protectionError{arn, code, message}})
	}
	var asked struct {
		ProtectionEnabled *bool
		ExpiresInMinutes  *int64
	}
	switch r.Method {
	case http.MethodGet:
	case http.MethodPut:
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
		d.DisallowUnknownFields()
		if err := d.Decode(&asked); err != nil {
			refuse(http.StatusBadRequest, "", "InvalidParameterException", "UpdateTaskProtection: failed to decode request")
			return
		}
	default:
		fail(w, http.StatusMethodNotAllowed, "scale-in protection is read with GET and set with PUT")
		return
	}
	t, err := s.cfg.Named(id, from)
	if err != nil {
		refuse(http.StatusNotFound, "", "ResourceNotFoundException", "Failed to find a task for the request")
		return
	}
	arn := t.Assignment.TaskArn
	in := map[string]any{"cluster": t.Assignment.Spec.Cluster, "tasks": []string{arn}}
	operation := "GetTaskProtection"
	if r.Method == http.MethodPut {
		if asked.ProtectionEnabled == nil {
			refuse(http.StatusBadRequest, arn, "InvalidParameterException", "Invalid request: does not contain 'ProtectionEnabled' field")
			return
		}
		operation = "UpdateTaskProtection"
		in["protectionEnabled"] = *asked.ProtectionEnabled
		if asked.ExpiresInMinutes != nil {
			in["expiresInMinutes"] = *asked.ExpiresInMinutes
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), protectionWithin)
	defer cancel()
	code, answer, err := s.askECS(ctx, t, operation, in)
	switch {
	case errors.Is(err, ErrUnknown), status.Code(err) == codes.PermissionDenied:
		refuse(http.StatusForbidden, arn, "AccessDeniedException", "Invalid Request: no task IAM role credentials available for task")
	case ctx.Err() != nil:
		refuse(http.StatusGatewayTimeout, arn, "RequestCanceled", "Timed out calling ECS Task Protection API")
	case err != nil:
		s.cfg.Logger.Warn("scale-in protection of a task", "task", t.Assignment.TaskId, "error", err)
		refuse(http.StatusInternalServerError, arn, "ServerException", "Unexpected error occurred")
	default:
		write(w, code, answer)
	}
}

// askECS calls an operation with the credentials of the task's role.
func (s *Server) askECS(ctx context.Context, t Task, operation string, in map[string]any) (code int, answer protectionAnswer, err error) {
	c, err := s.cfg.Credentials(ctx, t.Assignment.TaskId)
	if err != nil {
		return 0, answer, err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return 0, answer, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://169.254.170.2/", bytes.NewReader(body))
	if err != nil {
		return 0, answer, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113."+operation)
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, aws.Credentials{AccessKeyID: c.AccessKeyId, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken},
		req, hex.EncodeToString(sum[:]), "ecs", t.Assignment.Spec.Region, time.Now())
	if err != nil {
		return 0, answer, err
	}
	res, err := s.cfg.API.RoundTrip(req)
	if err != nil {
		return 0, answer, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, answer, err
	}
	answer, err = readProtection(res, text, t.Assignment.TaskArn)
	return res.StatusCode, answer, err
}

// readProtection puts the operations' answer about one task into the endpoint's shape.
func readProtection(res *http.Response, text []byte, arn string) (answer protectionAnswer, err error) {
	var out struct {
		ProtectedTasks []struct {
			TaskArn           string
			ProtectionEnabled bool
			ExpirationDate    *float64 // seconds
		}
		Failures []struct {
			Arn, Reason string
			Detail      *string
		}
		Type    string `json:"__type"`
		Message string
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return answer, err
	}
	switch {
	case res.StatusCode != http.StatusOK:
		code := out.Type[strings.LastIndexByte(out.Type, '#')+1:]
		return protectionAnswer{RequestID: res.Header.Get("X-Amzn-Requestid"), Error: &protectionError{arn, code, out.Message}}, nil
	case len(out.Failures) == 1:
		f := out.Failures[0]
		return protectionAnswer{Failure: &taskFailure{f.Arn, f.Detail, f.Reason}}, nil
	case len(out.ProtectedTasks) != 1:
		return answer, errors.New("ECS says nothing about the task")
	}
	p := out.ProtectedTasks[0]
	answer.Protection = &protectedTask{ProtectionEnabled: p.ProtectionEnabled, TaskArn: p.TaskArn}
	if p.ExpirationDate != nil {
		answer.Protection.ExpirationDate = new(time.UnixMilli(int64(*p.ExpirationDate * 1000)).UTC())
	}
	return answer, nil
}
