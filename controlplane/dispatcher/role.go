package dispatcher

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Roles are what tasks act as; sts.Service is one.
type Roles interface {
	// TaskIdentity is who the role makes of the task, TaskCredentials are credentials of that one.
	TaskIdentity(account, role, taskARN string) (api.Identity, error)
	TaskCredentials(account, role, taskARN string) (api.Credential, error)
	// TaskMay says whether IAM lets that one do something.
	TaskMay(ctx context.Context, role, taskARN, action, resource string) error
}

// RoleCredentials makes credentials of a task's role for the node that the task is on. They are kept nowhere here.
func (s *Server) RoleCredentials(ctx context.Context, req *agentapi.RoleCredentialsRequest) (*agentapi.RoleCredentialsAnswer, error) {
	if s.Roles == nil {
		return nil, status.Error(codes.Unimplemented, "this server gives no credentials to tasks")
	}
	t, d, err := s.liveTask(ctx, req.NodeId, req.TaskId)
	if err != nil {
		return nil, err
	}
	role, _ := t.Roles(d)
	if role == "" {
		return nil, status.Error(codes.PermissionDenied, "the task has no role")
	}
	c, err := s.Roles.TaskCredentials(t.Account, role, t.ARN())
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, words(err))
	}
	return &agentapi.RoleCredentialsAnswer{RoleArn: role, AccessKeyId: c.Identity.AccessKeyID, SecretAccessKey: c.SecretAccessKey,
		SessionToken: c.SessionToken, Expires: timestamppb.New(c.Expires)}, nil
}

// login gives a container what its image is pulled with, if that is kept here: as the execution role, where the task has one. The agent of ECS
// first gets a token by GetAuthorizationToken; each request of the pull is then authorized for itself, by the registry. It answers as whom: nil is the platform.
func (a Assignments) login(t *controlplane.Task, role string, c *agentapi.ContainerSpec) *api.Identity {
	if _, _, ours := a.Credentials(t.Account, t.Region, c.Image, nil); !ours || role == "" {
		c.RegistryUser, c.RegistryPassword, _ = a.Credentials(t.Account, t.Region, c.Image, nil)
		return nil
	}
	who, err := a.Roles.TaskIdentity(t.Account, role, t.ARN())
	if err == nil {
		err = a.Roles.TaskMay(context.Background(), role, t.ARN(), "ecr:GetAuthorizationToken", "*") // it answers from memory
	}
	switch {
	case err == nil:
		c.RegistryUser, c.RegistryPassword, _ = a.Credentials(t.Account, t.Region, c.Image, &who)
	case t.LaunchType == "FARGATE":
		c.RegistryRefusal = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: " +
			"unable to retrieve ecr registry auth: service call has been retried 1 time(s): " + words(err)
	default:
		c.RegistryRefusal = "CannotPullECRContainerError: " + words(err)
	}
	return &who
}

// words are those of a refusal: that of a role that cannot be assumed as ECS has it, and IAM's.
func words(err error) string {
	if e, ok := awserr.As(err); ok {
		return e.Message
	}
	return "AccessDeniedException: " + err.Error()
}
