// Command panicking is a plugin made with GitLab's own library that panics in Init.
package main

import (
	"context"

	"github.com/hashicorp/go-hclog"
	"gitlab.com/gitlab-org/fleeting/fleeting/plugin"
	"gitlab.com/gitlab-org/fleeting/fleeting/provider"
)

// Only Init is ever called.
type group struct {
	provider.InstanceGroup
	regions map[string]string
}

func main() {
	plugin.Serve(&group{})
}

func (g *group) Init(context.Context, hclog.Logger, provider.Settings) (provider.ProviderInfo, error) {
	g.regions["eu-west-1"] = "the map is nil"
	return provider.ProviderInfo{ID: "panicking", MaxSize: 1}, nil
}
