//go:build !fleeting_2025_03_31

package main

import (
	"context"
	"errors"
	"fmt"

	"gitlab.com/gitlab-org/fleeting/fleeting"
	"gitlab.com/gitlab-org/fleeting/fleeting/provider"
)

// What the library of 2025-03-31 does not have: see older.go.

func capabilities(info provider.ProviderInfo) any {
	return info.Capabilities
}

func sayHealth(ctx context.Context, group provider.InstanceGroup, instance string) error {
	if err := group.Heartbeat(ctx, instance); err != nil {
		return fmt.Errorf("Heartbeat: %w", err)
	}
	say("heartbeat", fields{"instance": instance})
	return nil
}

// saySuspension suspends the instance and lets it go on, where the plugin can do that.
func saySuspension(ctx context.Context, group provider.InstanceGroup, instance string) error {
	_, suspendErr := group.Suspend(ctx, []string{instance})
	suspended := suspendErr == nil
	if suspended {
		if err := awaitState(ctx, group, instance, provider.StateSuspended); err != nil {
			return err
		}
	}
	_, resumeErr := group.Resume(ctx, []string{instance})
	if resumeErr == nil {
		if err := awaitState(ctx, group, instance, provider.StateRunning); err != nil {
			return err
		}
	}
	say("suspend_resume", fields{
		"suspended":           suspended,
		"suspend_unsupported": errors.Is(suspendErr, provider.ErrSuspendResumeNotSupported),
		"resume_unsupported":  errors.Is(resumeErr, provider.ErrSuspendResumeNotSupported),
	})
	return nil
}

func heartbeat(ctx context.Context, instance fleeting.Instance) error {
	return instance.Heartbeat(ctx)
}
