// Package headerssetter provides the part of the contrib distribution's
// headers_setter extension that config/otel-collector/config.yaml uses, under
// the same name and keys, so that the file runs unchanged on both. It is here
// because the original module cannot be had from the Go module proxy with its
// checksums verified.
//
// It sets outgoing headers from the client metadata of the request in hand.
// It does not read files, credentials or attributes.
package headerssetter

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensionauth"
	"google.golang.org/grpc/credentials"
)

// Config lists the headers to set on every request of an exporter.
type Config struct {
	Headers []Header `mapstructure:"headers"`
}

// Header is one outgoing header.
type Header struct {
	// Action is "upsert", which is also the default.
	Action string `mapstructure:"action"`
	// Key is the name of the header to send.
	Key string `mapstructure:"key"`
	// FromContext is the metadata key whose value is sent.
	FromContext string `mapstructure:"from_context"`
}

// Validate names the first entry that cannot work.
func (c *Config) Validate() error {
	if len(c.Headers) == 0 {
		return errors.New("headers: list at least one header")
	}
	for i, h := range c.Headers {
		switch {
		case h.Key == "":
			return fmt.Errorf("headers[%d].key: name the header to send", i)
		case h.FromContext == "":
			return fmt.Errorf("headers[%d].from_context: name the metadata key to read", i)
		case h.Action != "" && h.Action != "upsert":
			return fmt.Errorf("headers[%d].action: %q is not supported here, use upsert", i, h.Action)
		}
	}
	return nil
}

// NewFactory makes the extension known as headers_setter.
func NewFactory() extension.Factory {
	return extension.NewFactory(
		component.MustNewType("headers_setter"),
		func() component.Config { return &Config{} },
		func(_ context.Context, _ extension.Settings, cfg component.Config) (extension.Extension, error) {
			return &setter{headers: cfg.(*Config).Headers}, nil
		},
		component.StabilityLevelAlpha,
	)
}

type setter struct {
	component.StartFunc
	component.ShutdownFunc
	headers []Header
}

var (
	_ extensionauth.HTTPClient = (*setter)(nil)
	_ extensionauth.GRPCClient = (*setter)(nil)
)

// values returns what to send for the request that ctx belongs to. Metadata
// that is missing, or has more than one value, is an error: a batch must never
// go out without a tenant or under a guessed one.
func (s *setter) values(ctx context.Context) (map[string]string, error) {
	metadata := client.FromContext(ctx).Metadata
	out := make(map[string]string, len(s.headers))
	for _, h := range s.headers {
		found := metadata.Get(h.FromContext)
		if len(found) != 1 {
			return nil, fmt.Errorf("metadata %q has %d values, want one", h.FromContext, len(found))
		}
		out[h.Key] = found[0]
	}
	return out, nil
}

// RoundTripper sets the headers on HTTP requests.
func (s *setter) RoundTripper(base http.RoundTripper) (http.RoundTripper, error) {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		values, err := s.values(req.Context())
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		for name, value := range values {
			req.Header.Set(name, value)
		}
		return base.RoundTrip(req)
	}), nil
}

// PerRPCCredentials sets the headers as metadata of gRPC calls.
func (s *setter) PerRPCCredentials() (credentials.PerRPCCredentials, error) {
	return perRPC{s}, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type perRPC struct{ setter *setter }

func (p perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	return p.setter.values(ctx)
}

// RequireTransportSecurity is false: a tenant id is no secret, and collector
// and backends share a private network.
func (perRPC) RequireTransportSecurity() bool { return false }
