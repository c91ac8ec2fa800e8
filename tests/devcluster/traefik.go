// Traefik, the data plane of the add-on `gateway`.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	acme = "github.com/go-acme/lego/v4"
	// noDNSProviders stands in for the registry of ACME's DNS providers, which leads to the clients of every cloud: a third of
	// all that Traefik is built of. No cluster here asks for a certificate.
	noDNSProviders = `package dns

import (
	"fmt"

	"github.com/go-acme/lego/v4/challenge"
)

func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("this Traefik is built without the DNS provider %q", name)
}
`
)

func traefikArgs(c *Cluster) []string {
	return []string{
		fmt.Sprintf("--entrypoints.web.address=:%d", gatewayPort), fmt.Sprintf("--entrypoints.metrics.address=%s:8082", c.nodeIP()),
		"--providers.kubernetescrd=true", "--providers.kubernetescrd.allowemptyservices=true",
		// By default it takes in a change after another one 2 s later at the earliest, which a rollback would wait for.
		"--providers.providersthrottleduration=500ms",
		"--providers.kubernetesgateway=true", "--providers.kubernetesgateway.statusaddress.ip=" + c.nodeIP(),
		"--metrics.prometheus=true", "--metrics.prometheus.entrypoint=metrics", "--metrics.prometheus.addserviceslabels=true",
		"--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=INFO", "--log.nocolor=true",
	}
}

// copyTraefikCRDs puts Traefik's own CRDs beside the program: those of TraefikServices and what leads to them.
func copyTraefikCRDs(p program, dir string) error {
	from, err := p.sourcesOf("github.com/traefik/traefik/v3")
	if err != nil {
		return err
	}
	return copyCRDs(filepath.Join(from, "docs", "content", "reference", "dynamic-configuration", "traefik.io_*.yaml"), dir)
}

// trimTraefik makes a go.mod beside the program by which Traefik is built without DNS providers.
func trimTraefik(p program, dir string) (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	module := filepath.Join(source, p.module)
	download := exec.Command("go", "mod", "download", acme)
	download.Dir = module
	if out, err := download.CombinedOutput(); err != nil {
		return "", fmt.Errorf("download %s: %w\n%s", acme, err, out)
	}
	from, err := moduleDir(module, acme)
	if err != nil {
		return "", err
	}
	trimmed := filepath.Join(dir, "trimmed")
	if err := os.CopyFS(trimmed, os.DirFS(from)); err != nil {
		return "", fmt.Errorf("copy %s: %w", acme, err)
	}
	registry := filepath.Join(trimmed, "providers", "dns", "zz_gen_dns_providers.go")
	if err := os.Remove(registry); err != nil {
		return "", fmt.Errorf("%s has its DNS providers elsewhere now: %w", acme, err)
	}
	if err := os.WriteFile(registry, []byte(noDNSProviders), 0o644); err != nil {
		return "", err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := copyFile(filepath.Join(module, name), filepath.Join(dir, "trimmed"+filepath.Ext(name))); err != nil {
			return "", err
		}
	}
	modfile := filepath.Join(dir, "trimmed.mod")
	replace := exec.Command("go", "mod", "edit", "-replace", acme+"="+trimmed, modfile)
	if out, err := replace.CombinedOutput(); err != nil {
		return "", fmt.Errorf("replace %s: %w\n%s", acme, err, out)
	}
	return modfile, nil
}
