package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"gitlab.com/gitlab-org/fleeting/fleeting/connector"
	"gitlab.com/gitlab-org/fleeting/fleeting/provider"
)

// login runs commands on an instance through the library's connector.
func login(ctx context.Context, info provider.ConnectInfo) error {
	client, err := connector.Dial(ctx, info, connector.DialOptions{})
	if err != nil {
		return err
	}
	defer client.Close()

	const whoAmI = `id -un; echo "$HOME"; touch "$HOME/was-here" && echo writable`
	var stdout, stderr bytes.Buffer
	err = client.Run(ctx, connector.RunOptions{Command: whoAmI, Stdout: &stdout})
	if err != nil {
		return fmt.Errorf("%s: %w", whoAmI, err)
	}
	say("login", fields{"instance": info.ID, "lines": strings.Fields(stdout.String())})

	stdout.Reset()
	err = client.Run(ctx, connector.RunOptions{
		Command: "cat; echo on stderr >&2; exit 7",
		Stdin:   strings.NewReader("through stdin"),
		Stdout:  &stdout,
		Stderr:  &stderr,
	})
	var exit *connector.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("exit 7 ended with %v", err)
	}
	say("command", fields{
		"exit_code": exit.ExitCode(), "stdout": stdout.String(), "stderr": stderr.String(),
	})
	if err := stream(ctx, client, info.ID); err != nil {
		return err
	}
	// What a job leaves running ends with its instance.
	daemon := connector.RunOptions{Command: "setsid nohup sleep 1000 >/dev/null 2>&1 </dev/null &"}
	return client.Run(ctx, daemon)
}

// stream talks to a command that goes on running, as the library's tunnels do.
func stream(ctx context.Context, client connector.Client, instance string) error {
	conn, err := client.DialRun(ctx, "cat")
	if err != nil {
		return fmt.Errorf("DialRun: %w", err)
	}
	defer conn.Close()
	for _, word := range []string{"ping", "pong"} {
		if _, err := io.WriteString(conn, word); err != nil {
			return fmt.Errorf("DialRun: %w", err)
		}
		back := make([]byte, len(word))
		if _, err := io.ReadFull(conn, back); err != nil {
			return fmt.Errorf("DialRun: %w", err)
		}
		say("echo", fields{"instance": instance, "sent": word, "back": string(back)})
	}
	return nil
}
