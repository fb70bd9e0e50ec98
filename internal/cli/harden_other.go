//go:build !unix

package cli

func keepSecrets() {}
