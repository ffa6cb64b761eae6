package metadata

import (
	"errors"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// ErrUnknown says that there is no task by an id, or that a task has no role.
var ErrUnknown = errors.New("there is no such task, or it has no role")

// roleCredentials is what SDKs read.
type roleCredentials struct {
	RoleArn         string
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	Token           string
	Expiration      string
}

// credentialsError is how the ECS agent refuses.
type credentialsError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Status  int    `json:"HTTPErrorCode"`
}

// credentials answers GET /v2/credentials/ID. Neither the answer nor the id is logged.
func (s *Server) credentials(w http.ResponseWriter, r *http.Request, id string, from netip.Addr) {
	refuse := func(status int, code, text string) {
		write(w, status, credentialsError{code, "CredentialsV2Request: " + text, status})
	}
	if r.Method != http.MethodGet {
		fail(w, http.StatusMethodNotAllowed, "credentials are read with GET")
		return
	}
	if id == "" {
		refuse(http.StatusBadRequest, "NoIdInRequest", "No Credential ID in the request")
		return
	}
	var c *agentapi.RoleCredentialsAnswer
	t, err := s.cfg.Named(id, from)
	if err == nil {
		c, err = s.cfg.Credentials(r.Context(), t.Assignment.TaskId)
	}
	switch code := status.Code(err); {
	case err == nil:
		write(w, http.StatusOK, roleCredentials{c.RoleArn, c.AccessKeyId, c.SecretAccessKey, c.SessionToken, c.Expires.AsTime().UTC().Format(time.RFC3339)})
	case errors.Is(err, ErrUnknown):
		refuse(http.StatusBadRequest, "InvalidIdInRequest", "Credentials not found")
	case code == codes.PermissionDenied: // the role went, or does not let tasks assume it any more
		s.cfg.Logger.Warn("credentials of a task's role", "from", from, "error", err)
		refuse(http.StatusBadRequest, "InvalidIdInRequest", "Credentials not found: "+status.Convert(err).Message())
	default:
		s.cfg.Logger.Warn("credentials of a task's role", "from", from, "error", err)
		refuse(http.StatusServiceUnavailable, "CredentialsUninitialized", "Credentials uninitialized for ID")
	}
}
