package ecs

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// Sessions is what ExecuteCommand stands on.
type Sessions interface {
	// Begin makes a session, for the caller, in which the command will run in a container of the task, once a client opens it.
	// What it shows is kept in to; nil: nowhere.
	Begin(ctx context.Context, t *controlplane.Task, node, container string, command []string, to *controlplane.SessionLog) (types.Session, error)
}

// maxCommand is the length of a command line: it travels in the session's token.
const maxCommand = 16 << 10

// executeCommand implements ecs:ExecuteCommand. It answers with a session, which the client opens; until then nothing happens.
func (s *Service) executeCommand(ctx context.Context, in *ecs.ExecuteCommandInput) (*ecs.ExecuteCommandOutput, error) {
	if !in.Interactive {
		return nil, invalid("Interactive is the only mode supported currently.")
	}
	line := aws.ToString(in.Command)
	if len(line) > maxCommand {
		return nil, invalid("command can not be longer than %d characters.", maxCommand)
	}
	command, err := splitCommand(line)
	switch {
	case err != nil:
		return nil, invalid("command can not be read: %v.", err)
	case len(command) == 0:
		return nil, invalid("command can not be blank.")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, scope, in.Cluster)
	if err != nil {
		return nil, err
	}
	ref, err := taskID(scope, c.Name, aws.ToString(in.Task))
	if err != nil {
		return nil, err
	}
	t, st, ok := findTask(v, scope, c.Name, ref)
	if !ok {
		return nil, invalid("The referenced task was not found.")
	}
	name, err := execContainer(s.taskShape(v, t, st, false), aws.ToString(in.Container))
	if err != nil {
		return nil, err
	}
	if n, ok := controlplane.Nodes.Get(v, state.K(st.Node)); ok && n.AmazonAgent != nil {
		return nil, awserr.New("TargetNotConnectedException", "Commands can not be run in tasks of container instances with Amazon's ECS agent.")
	}
	var to *controlplane.SessionLog
	if d, ok := controlplane.TaskDefinitions.Get(v, scope.FamilyRevisionKey(t.TaskDefinition)); ok {
		to = controlplane.SessionLogOf(c, d.Shape(), name)
	}
	session, err := s.Sessions.Begin(ctx, t, st.Node, name, command, to)
	if err != nil {
		return nil, err
	}
	return &ecs.ExecuteCommandOutput{
		ClusterArn: aws.String(c.ARN()), TaskArn: aws.String(t.ARN()), Interactive: true, Session: &session,
		ContainerArn: aws.String(scope.ContainerARN(c.Name, t.Id, id.UUIDOf(t.Id+"/"+name))), ContainerName: &name,
	}, nil
}

// logGroupName is how CloudWatch Logs wants groups to be called.
var logGroupName = regexp.MustCompile(`^[.\-_/#A-Za-z0-9]{1,512}$`)

// Names of buckets, and of what stands before the names of sessions' objects: what needs no escaping, since stores escape the rest differently.
var (
	bucketName   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	objectPrefix = regexp.MustCompile(`^[A-Za-z0-9/_.~-]{0,900}$`)
)

// checkExecLogging holds where a cluster wants its sessions' output kept against what ECS takes: OVERRIDE and a log configuration go together.
func (s *Service) checkExecLogging(c *types.ClusterConfiguration) error {
	if c == nil || c.ExecuteCommandConfiguration == nil {
		return nil
	}
	exec := c.ExecuteCommandConfiguration
	group, bucket, prefix, encrypted := "", "", "", false
	if l := exec.LogConfiguration; l != nil {
		group, bucket, prefix, encrypted = aws.ToString(l.CloudWatchLogGroupName), aws.ToString(l.S3BucketName), aws.ToString(l.S3KeyPrefix), l.S3EncryptionEnabled
	}
	if bucket != "" && !s.SessionBuckets {
		return invalid("'configuration.executeCommandConfiguration.logConfiguration.s3BucketName' is not supported by this platform: " +
			"it has no S3 endpoint with credentials; start its servers with --s3-endpoint.")
	}
	override := exec.Logging == types.ExecuteCommandLoggingOverride
	switch {
	case override && group == "" && bucket == "":
		return invalid("executeCommandConfiguration.logConfiguration must name a log group or a bucket when logging is OVERRIDE.")
	case !override && exec.LogConfiguration != nil:
		return invalid("executeCommandConfiguration.logConfiguration can only be specified when logging is OVERRIDE.")
	case override && group != "" && !logGroupName.MatchString(group):
		return invalid("executeCommandConfiguration.logConfiguration.cloudWatchLogGroupName is not the name of a log group.")
	case override && bucket == "" && (prefix != "" || encrypted):
		return invalid("executeCommandConfiguration.logConfiguration.s3KeyPrefix and s3EncryptionEnabled need an s3BucketName.")
	case bucket != "" && !bucketName.MatchString(bucket):
		return invalid("executeCommandConfiguration.logConfiguration.s3BucketName is not the name of a bucket.")
	case !objectPrefix.MatchString(prefix):
		return invalid("executeCommandConfiguration.logConfiguration.s3KeyPrefix must be at most 900 letters, digits and / _ . - ~.")
	}
	return nil
}

// execContainer is the container that a command is to run in: the one named, or the only one.
func execContainer(t types.Task, name string) (string, error) {
	if name == "" {
		if len(t.Containers) != 1 {
			return "", invalid("A container name must be specified: the task has %d containers.", len(t.Containers))
		}
		name = aws.ToString(t.Containers[0].Name)
	}
	i := slices.IndexFunc(t.Containers, func(c types.Container) bool { return aws.ToString(c.Name) == name })
	if i < 0 {
		return "", invalid("The task has no container %s.", name)
	}
	for _, a := range t.Containers[i].ManagedAgents {
		if aws.ToString(a.LastStatus) == running {
			return name, nil
		}
	}
	return "", invalid("The execute command failed because execute command was not enabled when the task was run or the execute command agent isn’t running. Wait and try again or run a new task with execute command enabled and try again.")
}

const running = "RUNNING"

// managedAgents shows the agent by which commands are run in a container. Here it is the host's, so that it runs when the container does.
func managedAgents(t *controlplane.Task, s *agentapi.ContainerStatus, live bool) []types.ManagedAgent {
	if !t.EnableExecuteCommand {
		return nil
	}
	a := types.ManagedAgent{Name: types.ManagedAgentNameExecuteCommandAgent, LastStatus: aws.String("PENDING")}
	switch state := s.GetState(); {
	case state == agentapi.ContainerState_CONTAINER_STOPPED || !live:
		a.LastStatus = aws.String("STOPPED")
	case state == agentapi.ContainerState_CONTAINER_RUNNING:
		a.LastStatus = aws.String(running)
	}
	a.LastStartedAt = timeOf(s.GetStarted())
	return []types.ManagedAgent{a}
}

// splitCommand makes words of a command line, as AWS's agent in a container does: without a shell, by a shell's rules of quoting.
func splitCommand(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun, escaped := false, false
	quote := rune(0)
	for _, r := range line {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			begun, escaped = true, true
		case quote != 0:
			if r == quote {
				quote = 0
				continue
			}
			word.WriteRune(r)
		case r == '\'' || r == '"':
			begun, quote = true, r
		case strings.ContainsRune(" \t\r\n", r):
			if begun {
				words = append(words, word.String())
				word.Reset()
				begun = false
			}
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	switch {
	case escaped:
		return nil, errors.New("it ends with a backslash")
	case quote != 0:
		return nil, errors.New("a quote is not closed")
	case begun:
		words = append(words, word.String())
	}
	return words, nil
}
