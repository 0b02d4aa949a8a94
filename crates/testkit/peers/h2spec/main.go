// Command okmon-h2spec runs the public HTTP/2 conformance suite h2spec, strict
// cases included, against a server, and prints one line of JSON per case:
// {"case":"http2/5.1.1/2","result":"failed","what":"…","detail":"…"}
//
// It ends with 0 when all cases could be run, whatever came out of them. It is
// here because h2spec's own report can be read by people only.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

type line struct {
	Case   string `json:"case"`
	Result string `json:"result"`
	What   string `json:"what"`
	Detail string `json:"detail,omitempty"`
}

func main() {
	port := flag.Int("port", 0, "of 127.0.0.1")
	path := flag.String("path", "/", "that requests are sent to")
	tls := flag.Bool("tls", false, "connect over TLS, without looking at the certificate")
	headerBytes := flag.Int("header-bytes", 4000, "length of the headers that cases make frames large with")
	timeout := flag.Duration("timeout", 2*time.Second, "for the server to react")
	flag.Parse()
	c := &config.Config{
		Host:         "127.0.0.1",
		Port:         *port,
		Path:         *path,
		Timeout:      *timeout,
		MaxHeaderLen: *headerBytes,
		Strict:       true,
		TLS:          *tls,
		Insecure:     *tls,
		Sections:     flag.Args(),
	}

	// h2spec prints as it goes; standard output is for our lines.
	out := json.NewEncoder(os.Stdout)
	os.Stdout = os.Stderr
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(c)
		if err := report(out, group); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func report(out *json.Encoder, group *spec.TestGroup) error {
	for _, test := range append(group.Tests, group.StrictTests...) {
		if test.Result == nil {
			continue
		}
		if err := out.Encode(lineOf(group, test)); err != nil {
			return err
		}
	}
	for _, inner := range group.Groups {
		if err := report(out, inner); err != nil {
			return err
		}
	}
	return nil
}

func lineOf(group *spec.TestGroup, test *spec.TestCase) line {
	it := line{
		Case:   fmt.Sprintf("%s/%d", group.ID(), test.Result.Sequence),
		Result: "passed",
		What:   test.Desc,
	}
	switch {
	case test.Result.Skipped:
		it.Result = "skipped"
	case test.Result.Failed:
		it.Result = "failed"
		it.Detail = test.Result.Error.Error()
	}
	return it
}
