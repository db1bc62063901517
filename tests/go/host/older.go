//go:build fleeting_2025_03_31

package main

import (
	"context"

	"gitlab.com/gitlab-org/fleeting/fleeting"
	"gitlab.com/gitlab-org/fleeting/fleeting/provider"
)

// The library of 2025-03-31 has no capabilities, no Heartbeat, no Suspend and no Resume.

func capabilities(provider.ProviderInfo) any { return nil }

func sayHealth(context.Context, provider.InstanceGroup, string) error { return nil }

func saySuspension(context.Context, provider.InstanceGroup, string) error { return nil }

func heartbeat(context.Context, fleeting.Instance) error { return nil }
