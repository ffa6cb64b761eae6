package logs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// syslog sends lines as Docker's driver does: severity err for stderr, info for stdout, in the format of RFC 3164 or RFC 5424. A line
// that cannot be written on the connection is tried once more on another, and then lost.
type syslog struct {
	o        options
	dial     Dial
	c        Config
	hostname string
	conn     net.Conn
	buf      []byte
}

// facilities by name; a number is one too.
var facilities = []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "", "", "",
	"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

const (
	severityErr  = 3
	severityInfo = 6
)

// The formats of syslog messages.
const (
	formatUnix         = "" // RFC 3164 without a host, as between programs of one
	formatRFC3164      = "rfc3164"
	formatRFC5424      = "rfc5424"
	formatRFC5424Micro = "rfc5424micro"
)

// networkTLS is a syslog address's scheme.
const networkTLS = "tcp+tls"

func (o *options) syslog(opt map[string]string) error {
	o.facility = 3 // daemon
	if name := opt["syslog-facility"]; name != "" {
		o.facility = -1
		for i, f := range facilities {
			if f != "" && f == name || strconv.Itoa(i) == name {
				o.facility = i
			}
		}
		if o.facility < 0 {
			return errors.New("invalid syslog facility")
		}
	}
	o.format = opt["syslog-format"]
	switch o.format {
	case formatUnix, formatRFC3164, formatRFC5424, formatRFC5424Micro:
	default:
		return errors.New("invalid syslog format")
	}
	o.tls = tlsOptions{ca: opt["syslog-tls-ca-cert"], cert: opt["syslog-tls-cert"], key: opt["syslog-tls-key"], skipVerify: opt["syslog-tls-skip-verify"] == "true"}
	text := opt["syslog-address"]
	if text == "" { // the host's own
		o.network, o.address = "unixgram", "/dev/log"
		return nil
	}
	scheme, address, ok := strings.Cut(text, "://")
	switch {
	case !ok:
		return fmt.Errorf("syslog-address should be in form proto://address, got %s", text)
	case scheme == "unix" || scheme == "unixgram":
	case scheme == "tcp" || scheme == "udp" || scheme == networkTLS:
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), "514")
		}
	default:
		return fmt.Errorf("unsupported scheme: %s", scheme)
	}
	o.network, o.address = scheme, address
	return nil
}

func newSyslog(ctx context.Context, c Config, o options, dial Dial) (*syslog, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	s := &syslog{o: o, dial: dial, c: c, hostname: host}
	return s, s.connect(ctx)
}

func (s *syslog) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	network := s.o.network
	if network == networkTLS {
		network = "tcp"
	}
	conn, err := s.dial(ctx, network, s.o.address)
	if err != nil && network == "unix" { // most daemons have a socket of datagrams
		conn, err = s.dial(ctx, "unixgram", s.o.address)
	}
	if err != nil {
		return err
	}
	if s.o.network == networkTLS {
		config, err := s.o.tls.config(s.o.address)
		if err != nil {
			conn.Close()
			return err
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return err
		}
		conn = secure
	}
	s.conn = conn
	return nil
}

func (t tlsOptions) config(address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: host, InsecureSkipVerify: t.skipVerify}
	if t.ca != "" {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", t.ca)
		}
	}
	if t.cert != "" || t.key != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func (s *syslog) send(ctx context.Context, l line) error {
	s.buf = s.message(s.buf[:0], l)
	var err error
	for range 2 {
		if err = nil; s.conn == nil {
			err = s.connect(ctx)
		}
		if err == nil {
			err = s.write(ctx)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.close()
	}
	return err
}

func (s *syslog) write(ctx context.Context) error {
	conn := s.conn // the end of ctx may be told when there is another, or none
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := s.conn.Write(s.buf)
	return err
}

func (s *syslog) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// message is the line in its format and its frame: a newline, or, as RFC 5425 wants it, its length in front.
func (s *syslog) message(b []byte, l line) []byte {
	severity := severityInfo
	if l.stderr {
		severity = severityErr
	}
	priority, pid := s.o.facility<<3|severity, os.Getpid()
	stamp := time.RFC3339
	switch s.o.format {
	case formatUnix:
		b = fmt.Appendf(b, "<%d>%s %s[%d]: %s", priority, l.at.Local().Format(time.Stamp), s.c.Tag, pid, l.text)
	case formatRFC3164:
		b = fmt.Appendf(b, "<%d>%s %s %s[%d]: %s", priority, l.at.Local().Format(time.Stamp), s.hostname, s.c.Tag, pid, l.text)
	default:
		if s.o.format == formatRFC5424Micro {
			stamp = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = fmt.Appendf(b, "<%d>1 %s %s %s %d %s - %s", priority, l.at.Local().Format(stamp), s.hostname, s.c.Tag, pid, s.c.Tag, l.text)
		if s.o.network == networkTLS {
			return append(strconv.AppendInt(nil, int64(len(b)), 10), append([]byte{' '}, b...)...)
		}
	}
	if s.o.network == "unixgram" || s.o.network == "udp" {
		return b
	}
	return append(b, '\n')
}
