// Command host drives a plugin with GitLab's own fleeting library, as a GitLab Runner
// does, and prints what it saw: one JSON object per step.
//
//	host calls PLUGIN CONFIG        every call of the protocol, one after the other
//	host provisioner PLUGIN CONFIG  the library's provisioner, and logins over SSH
//
// It is built on the library of two times: with the tag fleeting_2025_03_31 on that one.
//
// CONFIG is JSON. The program ends with 1 and a message on stderr at the first step that
// goes wrong; warnings of the library are there, too.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"gitlab.com/gitlab-org/fleeting/fleeting"
	"gitlab.com/gitlab-org/fleeting/fleeting/provider"
)

// Everything together takes a second or two, where the machine has nothing else to do.
const limit = 5 * time.Minute

// How long between two looks at something that changes by itself.
const pause = 20 * time.Millisecond

type drive func(context.Context, hclog.Logger, provider.InstanceGroup) error

var drives = map[string]drive{
	"calls":       driveCalls,
	"provisioner": driveProvisioner,
}

func main() {
	if len(os.Args) != 4 || drives[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: host calls|provisioner PLUGIN CONFIG")
		os.Exit(2)
	}
	if err := run(drives[os.Args[1]], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(drive drive, plugin, config string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr})

	runner, err := fleeting.RunPlugin(plugin, []byte(config), fleeting.WithPluginLogger(log))
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	err = drive(ctx, log, runner.InstanceGroup())
	begun := time.Now()
	runner.Kill()
	if err == nil {
		say("stop", fields{"milliseconds": time.Since(begun).Milliseconds()})
	}
	return err
}

type fields map[string]any

func say(step string, seen fields) {
	seen["step"] = step
	line, err := json.Marshal(seen)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// until looks until something is so.
func until(ctx context.Context, what string, isSo func() (bool, error)) error {
	for {
		if so, err := isSo(); err != nil || so {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s", what)
		case <-time.After(pause):
		}
	}
}

// text is what the library says of an error, "" if there is none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func connection(info provider.ConnectInfo) fields {
	return fields{
		"instance":  info.ID,
		"protocol":  info.Protocol,
		"os":        info.OS,
		"arch":      info.Arch,
		"user":      info.Username,
		"has_key":   len(info.Key) > 0,
		"internal":  info.InternalAddr,
		"external":  info.ExternalAddr,
		"keepalive": info.Keepalive.String(),
		"timeout":   info.Timeout.String(),
	}
}
