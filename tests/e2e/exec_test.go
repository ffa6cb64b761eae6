package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/storage/s3/s3test"
)

// TestExec runs commands in a container with our own client and, where AWS's is installed, with that.
func TestExec(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	for _, driver := range []string{"native", "docker"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			if driver == "docker" {
				dockerEngine(t)
			}
			p := startOn(t, driver)
			image := p.pushShell()
			id := p.exec0("run", "--detach", "--enable-execute-command", image, "trap 'exit 0' TERM; busybox sleep 600 & wait $!")
			p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", id)
			t.Run("Agent", func(t *testing.T) {
				if got := p.text("tasks[0].[enableExecuteCommand, containers[0].managedAgents[0].name, containers[0].managedAgents[0].lastStatus]", "ecs", "describe-tasks", "--tasks", id); got != "True\tExecuteCommandAgent\tRUNNING" {
					t.Errorf("the task shows %q", got)
				}
			})
			t.Run("Pipes", func(t *testing.T) {
				out, errs, err := p.neargate("exec", id, "--", "/bin/busybox", "sh", "-c", `echo "it's $0"; echo trouble >&2; exit 7`, "two words")
				if out != "it's two words\n" || errs != "trouble\n" || exitOf(err) != 7 {
					t.Errorf("out %q, errors %q, %v", out, errs, err)
				}
			})
			t.Run("Input", func(t *testing.T) {
				text := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
				cmd := exec.Command(binary, "exec", "-i", id, "--", "/bin/busybox", "cat")
				cmd.Env, cmd.Stdin = p.environment(), bytes.NewReader(text)
				if out, err := cmd.Output(); err != nil || !bytes.Equal(out, text) {
					t.Errorf("%v, %d bytes of %d came back", err, len(out), len(text))
				}
			})
			t.Run("Terminal", func(t *testing.T) {
				s := p.onTerminal(binary, "exec", "-it", id, "--", "/bin/busybox", "sh")
				sized := func(want string) { // docker's engine is told of a size while the command runs already
					t.Helper()
					s.say("until busybox stty size 2>&1 | busybox grep -q '^" + want + "$'; do busybox sleep 0.1; done; busybox stty size\r")
					s.until(want + "\r\n")
				}
				sized("41 113")
				s.resize(20, 60)
				sized("20 60")
				s.say("busybox sh -c 'echo slee''ping; exec busybox sleep 500'\r")
				s.until("sleeping\r\n")
				s.say("\x03")
				s.say("echo still $((40+2)) $TERM; exit 5\r")
				s.until("still 42 xterm-256color\r\n")
				if err := s.wait(); exitOf(err) != 5 {
					t.Errorf("it ended with %v: %s", err, s.out.String())
				}
			})
			t.Run("WhoLeavesKillsIt", func(t *testing.T) {
				cmd := exec.Command(binary, "exec", "-i", id, "--", "/bin/busybox", "sleep", "4242")
				cmd.Env = p.environment()
				in, err := cmd.StdinPipe()
				if err == nil {
					err = cmd.Start()
				}
				if err != nil {
					t.Fatal(err)
				}
				go io.Copy(in, strings.NewReader(strings.Repeat("nobody reads this ", 100_000)))
				p.eventually(func() error { return p.sleeps(id, "4242", true) })
				cmd.Process.Kill()
				cmd.Wait()
				p.eventually(func() error { return p.sleeps(id, "4242", false) })
			})
			t.Run("AWS", func(t *testing.T) {
				if _, err := exec.LookPath("session-manager-plugin"); err != nil {
					t.Skip("AWS's session-manager-plugin is not installed")
				}
				s := p.onTerminal("aws", "ecs", "execute-command", "--cluster", "default", "--task", id, "--interactive", "--command", "/bin/busybox sh")
				s.until("Starting session with SessionId: ecs-execute-command-")
				s.until("# ")
				s.say("echo from $((40+2)); busybox stty size\r")
				s.until("from 42\r\r\n41 113") // AWS's client leaves its own terminal's line ends on
				s.say("exit\r")
				s.until("Exiting session with sessionId: ecs-execute-command-")
				if err := s.wait(); err != nil {
					t.Errorf("it ended with %v: %s", err, s.out.String())
				}
			})
			t.Run("EndsWithTheTask", func(t *testing.T) {
				s := p.onTerminal(binary, "exec", "-it", id, "--", "/bin/busybox", "sh")
				s.say("echo up $((40+2))\r")
				s.until("up 42")
				p.aws(nil, "ecs", "stop-task", "--task", id)
				if err := s.wait(); err == nil {
					t.Errorf("it ended well: %s", s.out.String())
				}
			})
			t.Run("Refused", func(t *testing.T) {
				plain := p.exec0("run", "--detach", image, "trap 'exit 0' TERM; busybox sleep 600 & wait $!")
				p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", plain)
				if _, errs, err := p.neargate("exec", plain, "--", "/bin/sh"); err == nil || !strings.Contains(errs, "execute command was not enabled") {
					t.Errorf("%v: %s", err, errs)
				}
			})
		})
	}
}

// TestExecIsLogged: what sessions show is in CloudWatch Logs, by what the task's role may; the container's own group has it where the cluster says
// nothing, and another one where it says so.
func TestExecIsLogged(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	c := p.client().ECS
	p.role("app", "ecs:ListClusters")
	image := p.pushShell()
	must(c.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("f"), TaskRoleArn: aws.String("app"), ContainerDefinitions: []ecstypes.ContainerDefinition{{
		Name: aws.String("main"), Image: &image, Memory: aws.Int32(64), Command: []string{"trap 'exit 0' TERM; busybox sleep 600 & wait $!"},
		LogConfiguration: awslogs("group=own", "create-group=true", "stream-prefix=p")}}}))(t)
	id := path.Base(*must(c.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: aws.String("f"), EnableExecuteCommand: true}))(t).Tasks[0].TaskArn)
	p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", id)
	sessions := func(group string) string {
		text := p.text("events[].message", "logs", "filter-log-events", "--log-group-name", group, "--log-stream-name-prefix", "ecs-execute-command-")
		return strings.ReplaceAll(text, "\t", "\n") // how many lines are one event is a matter of time
	}
	say := func(words string) {
		t.Helper()
		if out, errs, err := p.neargate("exec", id, "--", "/bin/busybox", "echo", words); err != nil || out != words+"\n" {
			t.Fatalf("out %q, errors %q, %v", out, errs, err)
		}
	}
	say("nobody may keep this") // and the session goes on, as on AWS
	p.eventually(func() error { // it may be over for its client before its log is given up
		if !strings.Contains(p.out.String(), "is not kept any more") {
			return errors.New("the platform does not say that it keeps nothing of the session")
		}
		return nil
	})
	p.mayDo("app", "logs:CreateLogStream", "logs:PutLogEvents")
	say("by default")
	p.eventually(func() error {
		if got := sessions("own"); got != "by default" {
			return fmt.Errorf("the container's own group has %q", got)
		}
		return nil
	})
	p.aws(nil, "logs", "create-log-group", "--log-group-name", "audit")
	p.aws(nil, "ecs", "update-cluster", "--cluster", "default", "--configuration",
		"executeCommandConfiguration={logging=OVERRIDE,logConfiguration={cloudWatchLogGroupName=audit}}")
	s := p.onTerminal(binary, "exec", "-it", id, "--", "/bin/busybox", "sh")
	s.say("echo audited $((40+2)); exit\r")
	s.until("audited 42\r\n")
	if err := s.wait(); err != nil {
		t.Error(err)
	}
	if _, err := exec.LookPath("session-manager-plugin"); err == nil {
		s := p.onTerminal("aws", "ecs", "execute-command", "--cluster", "default", "--task", id, "--interactive", "--command", "/bin/busybox echo from AWS")
		if err := s.wait(); err != nil {
			t.Error(err)
		}
		p.eventually(func() error {
			if got := sessions("audit"); !strings.Contains(got, "from AWS") {
				return fmt.Errorf("the cluster's group has %q", got)
			}
			return nil
		})
	}
	p.eventually(func() error {
		if got := sessions("audit"); !strings.Contains(got, "echo audited $((40+2)); exit\naudited 42") {
			return fmt.Errorf("the cluster's group has %q", got)
		}
		return nil
	})
	p.aws(nil, "ecs", "update-cluster", "--cluster", "default", "--configuration", "executeCommandConfiguration={logging=NONE}")
	before := sessions("own") + sessions("audit")
	say("kept nowhere")
	if after := sessions("own") + sessions("audit"); after != before {
		t.Errorf("with NONE the groups have %q, and had %q", after, before)
	}
}

// exec0 is a verb that succeeds with one line.
func (p *platform) exec0(args ...string) string {
	p.t.Helper()
	out, errs, err := p.neargate(args...)
	if err != nil {
		p.t.Fatalf("neargate %q: %v\n%s", args, err, errs)
	}
	return strings.TrimSpace(out)
}

// sleeps says whether a sleep for so long runs in the task's container, unless it is as wanted.
func (p *platform) sleeps(id, seconds string, want bool) error {
	out, errs, err := p.neargate("exec", id, "--", "/bin/busybox", "ps")
	if err != nil {
		return fmt.Errorf("ps: %w: %s", err, errs)
	}
	if strings.Contains(out, "sleep "+seconds) != want {
		return fmt.Errorf("a sleep of %s is to be there: %v\n%s", seconds, want, out)
	}
	return nil
}

func exitOf(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return 0
}

// onTerminal is a client with a terminal of 113 columns and 41 rows of its own.
type onTerminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	out    output
	read   chan struct{} // closed when nothing more comes
}

func (p *platform) onTerminal(name string, args ...string) *onTerminal {
	p.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer slave.Close()
	s := &onTerminal{t: p.t, master: master, cmd: exec.Command(name, args...), read: make(chan struct{})}
	s.resize(41, 113)
	s.cmd.Env, s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = p.environment(), slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(s.read)
		io.Copy(&s.out, master) // until the last holder of the slave is gone
	}()
	p.t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.wait()
		master.Close()
	})
	return s
}

func (s *onTerminal) resize(rows, columns uint16) {
	s.t.Helper()
	if err := unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *onTerminal) say(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.master, text); err != nil {
		s.t.Fatal(err)
	}
}

// until waits for the words.
func (s *onTerminal) until(words string) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(s.out.String(), words); {
		select {
		case <-s.read:
			if !strings.Contains(s.out.String(), words) {
				s.t.Fatalf("it ended without %q: %q", words, s.out.String())
			}
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(end) {
			s.t.Fatalf("no %q: %q", words, s.out.String())
		}
	}
}

// wait returns how the client ended, once all that it wrote is there.
func (s *onTerminal) wait() error {
	<-s.read
	if s.cmd.ProcessState == nil {
		s.cmd.Wait()
	}
	if s.cmd.ProcessState.Success() {
		return nil
	}
	return &exec.ExitError{ProcessState: s.cmd.ProcessState}
}

// eventually waits until look finds what it looks for.
func (p *platform) eventually(look func() error) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := look()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			p.t.Fatal(err)
		}
	}
}

// TestExecIsKeptInABucket: with OVERRIDE sessions are objects of the bucket that the cluster names, in the operator's store.
func TestExecIsKeptInABucket(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	store := s3test.Start(t)
	p := startWith(t, "native", []string{"--s3-endpoint", store.URL, "--s3-region", s3test.Region}, "NEARGATE_S3_ACCESS_KEY_ID="+s3test.AccessKeyID, "NEARGATE_S3_SECRET_ACCESS_KEY="+s3test.SecretAccessKey)
	c := p.client().ECS
	image := p.pushShell()
	must(c.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("f"), ContainerDefinitions: []ecstypes.ContainerDefinition{{
		Name: aws.String("main"), Image: &image, Memory: aws.Int32(64), Command: []string{"trap 'exit 0' TERM; busybox sleep 600 & wait $!"}}}}))(t)
	p.aws(nil, "ecs", "update-cluster", "--cluster", "default", "--configuration",
		"executeCommandConfiguration={logging=OVERRIDE,logConfiguration={s3BucketName="+s3test.Bucket+",s3KeyPrefix=sessions,s3EncryptionEnabled=true}}")
	id := path.Base(*must(c.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: aws.String("f"), EnableExecuteCommand: true}))(t).Tasks[0].TaskArn)
	p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", id)
	if out, errs, err := p.neargate("exec", id, "--", "/bin/busybox", "echo", "kept in S3"); err != nil || out != "kept in S3\n" {
		t.Fatalf("out %q, errors %q, %v", out, errs, err)
	}
	p.eventually(func() error {
		keys := store.Keys()
		if len(keys) != 1 || !strings.HasPrefix(keys[0], "sessions/ecs-execute-command-") || !strings.HasSuffix(keys[0], ".log") {
			return fmt.Errorf("the bucket has %q", keys)
		}
		body, _, err := store.Client(t).Get(t.Context(), keys[0], 0)
		if err != nil {
			return err
		}
		defer body.Close()
		if text, err := io.ReadAll(body); err != nil || string(text) != "kept in S3\n" {
			return fmt.Errorf("it is %q, %v", text, err)
		}
		return nil
	})
}
