package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"gitlab.com/gitlab-org/fleeting/fleeting/provider"
)

const unknown = "no-such-instance"

// driveCalls makes one instance, looks at it from all sides and deletes it.
func driveCalls(ctx context.Context, log hclog.Logger, group provider.InstanceGroup) error {
	settings := provider.Settings{ConnectorConfig: provider.ConnectorConfig{
		Keepalive: 20 * time.Second,
		Timeout:   time.Minute,
	}}
	info, err := group.Init(ctx, log, settings)
	if err != nil {
		return fmt.Errorf("Init: %w", err)
	}
	say("init", fields{
		"id": info.ID, "max_size": info.MaxSize, "version": info.Version,
		"build_info": info.BuildInfo, "capabilities": capabilities(info),
	})
	if err := sayList(ctx, "before", group); err != nil {
		return err
	}
	instance, err := makeOne(ctx, group)
	if err != nil {
		return err
	}
	if err := sayInstance(ctx, group, instance); err != nil {
		return err
	}
	deleted, err := group.Decrease(ctx, []string{instance})
	if err != nil {
		return fmt.Errorf("Decrease: %w", err)
	}
	say("decrease", fields{"succeeded": deleted})
	if err := awaitGone(ctx, group, instance); err != nil {
		return err
	}
	if err := sayList(ctx, "after", group); err != nil {
		return err
	}
	if err := group.Shutdown(ctx); err != nil {
		return fmt.Errorf("Shutdown: %w", err)
	}
	say("shutdown", fields{})
	return nil
}

func list(ctx context.Context, group provider.InstanceGroup) (map[string]provider.State, error) {
	states := make(map[string]provider.State)
	err := group.Update(ctx, func(instance string, state provider.State) {
		states[instance] = state
	})
	if err != nil {
		return nil, fmt.Errorf("Update: %w", err)
	}
	return states, nil
}

func sayList(ctx context.Context, when string, group provider.InstanceGroup) error {
	states, err := list(ctx, group)
	if err == nil {
		say("update", fields{"when": when, "instances": states})
	}
	return err
}

func makeOne(ctx context.Context, group provider.InstanceGroup) (string, error) {
	accepted, err := group.Increase(ctx, 1)
	if err != nil {
		return "", fmt.Errorf("Increase: %w", err)
	}
	say("increase", fields{"succeeded": accepted})
	var instance string
	err = until(ctx, "the instance runs", func() (bool, error) {
		states, err := list(ctx, group)
		for id, state := range states {
			if state == provider.StateRunning {
				instance = id
			}
		}
		return instance != "", err
	})
	if err != nil {
		return "", err
	}
	return instance, sayList(ctx, "running", group)
}

func sayInstance(ctx context.Context, group provider.InstanceGroup, instance string) error {
	info, err := group.ConnectInfo(ctx, instance)
	if err != nil {
		return fmt.Errorf("ConnectInfo: %w", err)
	}
	say("connect_info", connection(info))
	if err := sayHealth(ctx, group, instance); err != nil {
		return err
	}
	_, connectErr := group.ConnectInfo(ctx, unknown)
	say("unknown_instance", fields{"connect_info": text(connectErr)})
	return saySuspension(ctx, group, instance)
}

func awaitState(ctx context.Context, group provider.InstanceGroup, instance string, wanted provider.State) error {
	return until(ctx, fmt.Sprintf("the instance is %s", wanted), func() (bool, error) {
		states, err := list(ctx, group)
		return states[instance] == wanted, err
	})
}

func awaitGone(ctx context.Context, group provider.InstanceGroup, instance string) error {
	return until(ctx, "the instance is gone", func() (bool, error) {
		states, err := list(ctx, group)
		state, listed := states[instance]
		return !listed || state == provider.StateDeleted, err
	})
}
