package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"gitlab.com/gitlab-org/fleeting/fleeting"
	"gitlab.com/gitlab-org/fleeting/fleeting/provider"
)

const wanted = 2

// driveProvisioner lets the library's own loop make instances, logs in to each of them,
// and deletes them through the loop again.
func driveProvisioner(ctx context.Context, log hclog.Logger, group provider.InstanceGroup) error {
	loop, err := fleeting.Init(ctx, log, group,
		fleeting.WithMaxSize(wanted),
		fleeting.WithInstanceGroupSettings(provider.Settings{}),
		fleeting.WithUpdateInterval(100*time.Millisecond),
		fleeting.WithUpdateIntervalWhenExpecting(50*time.Millisecond),
		fleeting.WithShutdownDeletionInterval(500*time.Millisecond),
		// A busy machine needs more than the usual three.
		fleeting.WithShutdownDeletionRetries(120),
	)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	// One more than there may be: it stays a request.
	loop.Request(wanted + 1)
	instances, err := awaitRunning(ctx, loop)
	if err != nil {
		return err
	}
	for _, instance := range instances {
		if err := use(ctx, instance); err != nil {
			return fmt.Errorf("instance %s: %w", instance.ID(), err)
		}
	}
	capacity := loop.Capacity()
	say("capacity", fields{"running": capacity.Running, "max": capacity.Max, "requested": capacity.Requested})
	for _, instance := range instances {
		instance.Delete()
	}
	loop.Shutdown(ctx)
	say("shutdown", fields{"left": len(loop.Instances())})
	return nil
}

func awaitRunning(ctx context.Context, loop *fleeting.Provisioner) ([]fleeting.Instance, error) {
	var running []fleeting.Instance
	err := until(ctx, "the instances run", func() (bool, error) {
		running = nil
		for _, instance := range loop.Instances() {
			if instance.State() == provider.StateRunning {
				running = append(running, instance)
			}
		}
		return len(running) == wanted, nil
	})
	return running, err
}

func use(ctx context.Context, instance fleeting.Instance) error {
	info, err := instance.ConnectInfo(ctx)
	if err != nil {
		return fmt.Errorf("ConnectInfo: %w", err)
	}
	seen := connection(info)
	seen["cause"] = instance.Cause()
	say("instance", seen)
	if err := login(ctx, info); err != nil {
		return err
	}
	if err := heartbeat(ctx, instance); err != nil {
		return fmt.Errorf("Heartbeat: %w", err)
	}
	return nil
}
