package ecsagent

import (
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// renewBefore is how long before their end credentials are replaced. They last six hours.
const renewBefore = time.Hour

// credentials makes those of a task's role, and notes when they end.
func (s *session) credentials(a *agentapi.Assignment, account, role, roleType string) (*roleCredentials, error) {
	c, err := s.Roles.TaskCredentials(account, role, a.TaskArn)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.expires[a.TaskId]; !ok || c.Expires.Before(at) {
		s.expires[a.TaskId] = c.Expires
	}
	return &roleCredentials{CredentialsID: s.credentialsID(a.TaskArn, roleType), RoleArn: role, AccessKeyID: c.Identity.AccessKeyID,
		SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Expiration: c.Expires.UTC().Format(time.RFC3339)}, nil
}

// refresh replaces credentials that end soon. Those of a role that cannot be assumed any more are not: they end.
func (s *session) refresh(now time.Time) error {
	var due []*agentapi.Assignment
	s.mu.Lock()
	for id, at := range s.expires {
		if a := s.tasks[id]; a == nil || at.Sub(now) < renewBefore {
			delete(s.expires, id)
			if a != nil {
				due = append(due, a)
			}
		}
	}
	s.mu.Unlock()
	v := s.Store.View()
	for _, a := range due {
		t, d, ok := s.records(v, a)
		if !ok {
			continue
		}
		task, execution := t.Roles(d)
		for roleType, role := range map[string]string{taskRole: task, executionRole: execution} {
			if role == "" {
				continue
			}
			c, err := s.credentials(a, t.Account, role, roleType)
			if err != nil {
				s.Log.Warn("the credentials of a task are not renewed", "task", a.TaskId, "role", role, "error", err)
				continue
			}
			m := credentialsMessage{MessageID: s.messageID(), TaskArn: a.TaskArn, TaskClusterArn: t.Scope().ClusterARN(t.Cluster), RoleType: roleType, RoleCredentials: c}
			if err := s.send("IAMRoleCredentialsMessage", m); err != nil {
				return err
			}
		}
	}
	return nil
}
