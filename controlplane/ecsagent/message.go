package ecsagent

import (
	"encoding/json"
	"fmt"

	"github.com/seed-2f228079/neargate/internal/id"
)

// Messages of the protocol, by the names of its model. A message is a JSON object of its type's name and itself.

type frame struct {
	Type    string          `json:"type"`
	Message json.RawMessage `json:"message"`
}

// encode frames a message.
func encode(kind string, message any) ([]byte, error) {
	m, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode a %s: %w", kind, err)
	}
	return json.Marshal(frame{kind, m})
}

func (g *Gateway) messageID() string { return id.UUID(g.Rand) }

// Down.

type payloadMessage struct {
	ClusterArn           string  `json:"clusterArn"`
	ContainerInstanceArn string  `json:"containerInstanceArn"`
	Tasks                []*task `json:"tasks"`
	GeneratedAt          int64   `json:"generatedAt"`
	MessageID            string  `json:"messageId"`
}

type heartbeatMessage struct {
	Healthy   bool   `json:"healthy"`
	MessageID string `json:"messageId,omitempty"`
}

// taskManifest lists all that an agent is to run, and to stop. Timeline grows from one to the next; the agent passes over one that does not.
type taskManifest struct {
	ClusterArn           string           `json:"clusterArn"`
	ContainerInstanceArn string           `json:"containerInstanceArn"`
	Tasks                []taskIdentifier `json:"tasks"`
	GeneratedAt          int64            `json:"generatedAt"`
	MessageID            string           `json:"messageId"`
	Timeline             int64            `json:"timeline"`
}

type taskIdentifier struct {
	TaskArn        string `json:"taskArn"`
	TaskClusterArn string `json:"taskClusterArn"`
	DesiredStatus  string `json:"desiredStatus"`
}

type stopVerificationAck struct {
	GeneratedAt int64            `json:"generatedAt"`
	MessageID   string           `json:"messageId"`
	StopTasks   []taskIdentifier `json:"stopTasks"`
}

type credentialsMessage struct {
	MessageID       string           `json:"messageId"`
	TaskArn         string           `json:"taskArn"`
	TaskClusterArn  string           `json:"taskClusterArn"`
	RoleType        string           `json:"roleType"`
	RoleCredentials *roleCredentials `json:"roleCredentials"`
}

type roleCredentials struct {
	CredentialsID   string `json:"credentialsId"`
	RoleArn         string `json:"roleArn"`
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
	SessionToken    string `json:"sessionToken"`
	Expiration      string `json:"expiration"`
}

// What tasks have credentials for.
const (
	taskRole      = "TaskApplication"
	executionRole = "TaskExecution"
)

// Up.

// upMessage has the members that are looked at of what comes up.
type upMessage struct {
	MessageID      string           `json:"messageId"`
	Reason         string           `json:"reason"`         // of a NackRequest
	Message        string           `json:"message"`        // of an ErrorMessage
	StopCandidates []taskIdentifier `json:"stopCandidates"` // of a TaskStopVerificationMessage
}
