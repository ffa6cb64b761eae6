package etcdtest

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// administer does something as etcd's operator does.
func (s *Server) administer(do func(ctx context.Context, c *clientv3.Client) error) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return do(ctx, c)
}

// Leads says whether this member leads etcd.
func (s *Server) Leads() bool {
	leads := false
	err := s.administer(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Status(ctx, s.Endpoint)
		leads = err == nil && r.Leader == r.Header.MemberId
		return err
	})
	return err == nil && leads
}

// Compact takes all of etcd's history away.
func (s *Server) Compact() {
	s.t.Helper()
	if err := s.administer(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, "/")
		if err == nil {
			_, err = c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
		}
		return err
	}); err != nil {
		s.t.Errorf("compact etcd: %v", err)
	}
}

// QuotaAlarm raises the alarm that etcd's quota is used up, or ends it.
func (s *Server) QuotaAlarm(raise bool) {
	s.t.Helper()
	if err := s.administer(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Status(ctx, s.Endpoint)
		if err != nil {
			return err
		}
		action := etcdserverpb.AlarmRequest_DEACTIVATE
		if raise {
			action = etcdserverpb.AlarmRequest_ACTIVATE
		}
		_, err = etcdserverpb.NewMaintenanceClient(c.ActiveConnection()).Alarm(ctx, &etcdserverpb.AlarmRequest{
			Action: action, Alarm: etcdserverpb.AlarmType_NOSPACE, MemberID: r.Header.MemberId,
		})
		return err
	}); err != nil {
		s.t.Errorf("quota alarm of etcd: %v", err)
	}
}
