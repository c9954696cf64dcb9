package client

import (
	"context"

	"cale/registry/credentials"
)

// DockerConfig returns a Credentials function that reads Docker's client
// configuration with its credential helpers. What can't be read is tried
// without a login: the registry's refusal tells the user.
func DockerConfig() func(host string) (user, pass string) {
	return func(host string) (user, pass string) {
		user, pass, err := credentials.Get(context.Background(), host)
		if err != nil {
			return "", ""
		}
		return user, pass
	}
}
