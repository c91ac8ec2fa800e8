// Keys and certificates: one authority for servers and clients, one for the API aggregator's
// proxied requests, and a kubeconfig for each user. Made once, kept with the cluster.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"time"
)

type authority struct {
	name        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

type identity struct {
	file, user string
	groups     []string
	names      []string // makes it a server's certificate, too
	addresses  []string
}

func (c *Cluster) ensurePKI() error {
	if _, err := os.Stat(c.path("pki", "complete")); err == nil {
		return c.writeKubeconfigs(false)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	clients, err := c.newAuthority("ca")
	if err != nil {
		return err
	}
	proxies, err := c.newAuthority("front-proxy-ca")
	if err != nil {
		return err
	}
	for _, id := range c.identities() {
		if err := c.issue(clients, id); err != nil {
			return err
		}
	}
	if err := c.issue(proxies, identity{file: "front-proxy", user: "front-proxy"}); err != nil {
		return err
	}
	if err := c.serviceAccountKeys(); err != nil {
		return err
	}
	if err := c.writeKubeconfigs(true); err != nil {
		return err
	}
	return writeFile(c.path("pki", "complete"), nil, 0o644)
}

func (c *Cluster) identities() []identity {
	admins := []string{"system:masters"}
	return []identity{
		{file: "apiserver", user: "kube-apiserver", addresses: []string{"127.0.0.1", c.nodeIP(), c.serverIP(), c.kubernetesIP()},
			names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		{file: "kubelet-server", user: c.nodeName(), names: []string{c.nodeName()}, addresses: []string{c.nodeIP(), "127.0.0.1"}},
		{file: "metrics-server", user: "metrics-server", addresses: []string{c.nodeIP()},
			groups: admins, names: []string{"metrics-server.kube-system.svc"}},
		{file: "kubelet-client", user: "kube-apiserver-kubelet-client", groups: admins},
		{file: "admin", user: "devcluster-admin", groups: admins},
		{file: "kube-controller-manager", user: "system:kube-controller-manager"},
		{file: "kube-scheduler", user: "system:kube-scheduler"},
		{file: "kube-proxy", user: "system:kube-proxy"},
		{file: "kubelet", user: "system:node:" + c.nodeName(), groups: []string{"system:nodes"}},
		{file: "coredns", user: "coredns", groups: admins},
		{file: "kwok", user: "kwok", groups: admins},
		{file: "traefik", user: "traefik", groups: admins},
		{file: "contour", user: "contour", groups: admins},
	}
}

func (c *Cluster) newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificateTemplate("devcluster-"+c.Name+"-"+name, nil)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := c.writePEM(name+".crt", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return &authority{name, certificate, key}, nil
}

func certificateTemplate(user string, groups []string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: user, Organization: groups},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(5, 0, 0),
	}
}

func (c *Cluster) issue(from *authority, id identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := certificateTemplate(id.user, id.groups)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.DNSNames = id.names
	for _, address := range id.addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	if len(id.names) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, from.certificate, &key.PublicKey, from.key)
	if err != nil {
		return err
	}
	if err := c.writePEM(id.file+".crt", "CERTIFICATE", der); err != nil {
		return err
	}
	return c.writeKey(id.file+".key", key)
}

func (c *Cluster) serviceAccountKeys() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := c.writePEM("service-accounts.pub", "PUBLIC KEY", public); err != nil {
		return err
	}
	return c.writeKey("service-accounts.key", key)
}

func (c *Cluster) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return c.writePEM(name, "EC PRIVATE KEY", der)
}

func (c *Cluster) writePEM(name, kind string, der []byte) error {
	return writeFile(c.pki(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func (c *Cluster) pki(name string) string               { return c.path("pki", name) }
func (c *Cluster) kubeconfigOf(component string) string { return c.path("kubeconfigs", component) }

// writeKubeconfigs gives the components the address inside the namespace, and the administrator
// the one that the host reaches: all of them anew, or those that are missing.
func (c *Cluster) writeKubeconfigs(anew bool) error {
	for _, user := range []string{"admin", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "coredns", "kwok", "metrics-server", "traefik", "contour"} {
		server := "https://" + c.nodeIP() + ":6443"
		if user == "admin" {
			server = c.server()
		}
		if _, err := os.Stat(c.kubeconfigOf(user)); err == nil && !anew {
			continue
		}
		identity := user
		if _, err := os.Stat(c.pki(user + ".crt")); errors.Is(err, fs.ErrNotExist) {
			// A component that came after this cluster: the authority's key is not kept.
			identity = "admin"
		}
		text, err := c.kubeconfig(identity, server)
		if err != nil {
			return err
		}
		if err := writeFile(c.kubeconfigOf(user), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) kubeconfig(user, server string) (string, error) {
	var encoded [3]string
	for i, name := range []string{"ca.crt", user + ".crt", user + ".key"} {
		data, err := os.ReadFile(c.pki(name))
		if err != nil {
			return "", err
		}
		encoded[i] = base64.StdEncoding.EncodeToString(data)
	}
	context := "devcluster-" + c.Name
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[2]s}
clusters:
- name: %[1]s
  cluster:
    server: %[3]s
    certificate-authority-data: %[4]s
users:
- name: %[2]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
`, context, user, server, encoded[0], encoded[1], encoded[2]), nil
}
