// A client of the API server: just enough to apply a manifest and to ask for conditions, so
// that starting a cluster does not depend on a kubectl.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

type apiClient struct {
	base string
	http *http.Client
}

func (c *Cluster) api() (*apiClient, error) {
	pair, err := tls.LoadX509KeyPair(c.pki("admin.crt"), c.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, errors.New("the certificate authority cannot be read; `make cluster-down` and start again")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
	return &apiClient{c.server(), &http.Client{Transport: transport, Timeout: 10 * time.Second}}, nil
}

func (a *apiClient) do(method, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequest(method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, shorten(string(data)))
	}
	return data, err
}

func (a *apiClient) get(path string, into any) error {
	data, err := a.do(http.MethodGet, path, "", nil)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// apply sends one manifest by server-side apply; the path is that of the object.
func (a *apiClient) apply(path, manifest string) error {
	_, err := a.do(http.MethodPatch, path+"?fieldManager=devcluster&force=true", "application/apply-patch+yaml", []byte(manifest))
	return err
}

func (a *apiClient) remove(path string) error {
	_, err := a.do(http.MethodDelete, path+"?gracePeriodSeconds=0", "", nil)
	return err
}

func shorten(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > 600 {
		return text[:600] + "..."
	}
	return text
}
