// Package s3conn connects to a bucket of an S3-compatible server, as a URL and the environment say. It is shared by what Treeline
// keeps in buckets: the fence, and archives.
package s3conn

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// iamPatience is how long it may take to be given the credentials of the machine or container.
const iamPatience = 5 * time.Second

// Bucket is a bucket, of which one user has what begins with a prefix.
type Bucket struct {
	Name   string
	Prefix string     // of all objects: empty, or ends in a slash
	Params url.Values // of the URL

	endpoint  string
	options   minio.Options
	transport *http.Transport
}

// Parse reads a URL:
//
//	s3://BUCKET/PREFIX?endpoint=https://s3.example.com&region=REGION
//
// The endpoint is that of AWS if there is none, the region $AWS_REGION, $AWS_DEFAULT_REGION or us-east-1. The credentials are
// those of the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), else of the shared credentials file,
// else those that the machine or container is given (IAM). The URL may have further parameters, which also names.
func Parse(rawURL string, also ...string) (*Bucket, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.Fragment != "" {
		// The URL itself may hold what nobody should see.
		return nil, errors.New("want a URL like s3://BUCKET/PREFIX?endpoint=https://s3.example.com&region=REGION")
	}
	if u.User != nil {
		return nil, errors.New("credentials don't belong in the URL; put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the environment")
	}
	b := &Bucket{Name: u.Host, Prefix: strings.Trim(u.Path, "/")}
	if b.Params, err = url.ParseQuery(u.RawQuery); err != nil {
		return nil, errors.New("the part of the URL after the question mark is malformed")
	}
	allowed := append([]string{"endpoint", "region"}, also...)
	for name := range b.Params {
		if !slices.Contains(allowed, name) {
			return nil, fmt.Errorf("the URL has a parameter %q; it may have %s and %s", name,
				strings.Join(allowed[:len(allowed)-1], ", "), allowed[len(allowed)-1])
		}
	}
	if b.Prefix != "" {
		b.Prefix += "/"
	}
	endpoint, secure := "s3.amazonaws.com", true
	if text := b.Params.Get("endpoint"); text != "" {
		e, err := url.Parse(text)
		if err != nil || e.Scheme != "https" && e.Scheme != "http" || e.Host == "" || e.User != nil ||
			strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
			return nil, errors.New("the endpoint in the URL is not of the form https://HOST or http://HOST")
		}
		endpoint, secure = e.Host, e.Scheme == "https"
	}
	if b.transport, err = minio.DefaultTransport(secure); err != nil {
		return nil, err
	}
	b.endpoint, b.options = endpoint, minio.Options{
		Secure: secure, Transport: b.transport,
		// Without a region each start would have to ask for the bucket's.
		Region: firstOf(b.Params.Get("region"), os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), "us-east-1"),
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{},
			&credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Timeout: iamPatience}},
		}),
	}
	return b, nil
}

func firstOf(values ...string) string {
	i := slices.IndexFunc(values, func(s string) bool { return s != "" })
	return values[i]
}

// Client returns a client that tries each request so many times.
func (b *Bucket) Client(tries int) (*minio.Core, error) {
	opt := b.options
	opt.MaxRetries = tries
	return minio.NewCore(b.endpoint, &opt)
}

// CheckCredentials returns an error if there are no credentials.
func CheckCredentials(c *minio.Core) error {
	if v, err := c.GetCreds(); err == nil && v.AccessKeyID == "" {
		return errors.New("there are no credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, nor a " +
			"shared credentials file, nor a role of this machine")
	}
	return nil
}

// String returns the bucket's place, without what is secret.
func (b *Bucket) String() string { return "s3://" + b.Name + "/" + strings.TrimSuffix(b.Prefix, "/") }

// Close ends idle connections.
func (b *Bucket) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}

// IfNone is the condition of a write that there is no such object.
func IfNone() (opt minio.PutObjectOptions) {
	opt.SetMatchETagExcept("*")
	return opt
}

// IfMatch is the condition of a write that the object is the one that has the ETag.
func IfMatch(etag string) (opt minio.PutObjectOptions) {
	opt.SetMatchETag(etag)
	return opt
}

// Absent reports whether the server says that there is no such object. The client library takes any answer 404 for that, also
// one of a proxy that can't find the server, but only what S3 itself answers is in XML.
func Absent(err error) bool {
	r := minio.ToErrorResponse(err)
	return r.Code == minio.NoSuchKey && r.XMLName.Local == "Error"
}

// Refused reports whether a write was refused, and nothing changed, because its condition doesn't hold (412), the object to be
// replaced is gone (404), or another write is under way (409).
func Refused(err error) bool {
	code := minio.ToErrorResponse(err).StatusCode
	return code == http.StatusPreconditionFailed || code == http.StatusConflict || Absent(err)
}
