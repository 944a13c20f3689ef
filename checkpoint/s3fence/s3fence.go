// Package s3fence keeps a fence in a bucket of an S3-compatible server, for several Treeline servers that use one database.
//
// Every log has one object, whose name is the prefix and [checkpoint.FenceName] and whose content is the note, as the files of a
// [checkpoint.FileFence] are. An object is written on a condition only: that there is none (If-None-Match: *), or that it is
// still the one that was read (If-Match with its ETag). So the server is what serialises changes, and it must be strongly
// consistent, as S3 is: what was written is what everybody reads from then on.
//
// A write is never tried again by itself. If its answer was lost, the second try would meet the object that the first has
// written, and look like somebody else's move. Whoever gets the error reads again.
package s3fence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/checkpoint"
)

const (
	// patience is how long one call may take. Notes have a few hundred bytes: a server that needs longer is as good as none.
	patience = 5 * time.Second

	// listPatience is how long the list of all objects may take, a thousand at a time.
	listPatience = time.Minute

	// readers is how many objects Origins reads at a time.
	readers = 16

	// maxNote is a size that no note has.
	maxNote = 1 << 20
)

// A Fence is a [checkpoint.Fence] in a bucket.
type Fence struct {
	bucket string
	prefix string // of all objects: empty, or ends in a slash

	read      *minio.Core // tries again
	write     *minio.Core // doesn't
	transport *http.Transport
}

var _ checkpoint.Fence = (*Fence)(nil)

// Open opens the fence at a URL:
//
//	s3://BUCKET/PREFIX?endpoint=https://s3.example.com&region=REGION
//
// The endpoint is that of AWS if there is none, the region $AWS_REGION, $AWS_DEFAULT_REGION or us-east-1. The credentials are
// those of the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), else of the shared credentials file,
// else those that the machine or container is given (IAM). The bucket must exist, and is the fence's from the prefix on: an
// installation has a prefix of its own.
//
// Open writes an object named "probe" to find out that the server minds conditions. One that doesn't is refused.
func Open(ctx context.Context, rawURL string) (*Fence, error) {
	f, err := connect(rawURL)
	if err != nil {
		return nil, fmt.Errorf("opening fence: %w", err)
	}
	if err := f.probe(ctx); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening fence at %s: %w", f, err)
	}
	return f, nil
}

func connect(rawURL string) (*Fence, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.Fragment != "" {
		// The URL itself may hold what nobody should see.
		return nil, errors.New("want a URL like s3://BUCKET/PREFIX?endpoint=https://s3.example.com&region=REGION")
	}
	if u.User != nil {
		return nil, errors.New("credentials don't belong in the URL; put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the environment")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the part of the URL after the question mark is malformed")
	}
	for name := range query {
		if name != "endpoint" && name != "region" {
			return nil, fmt.Errorf("the URL has a parameter %q; it may have endpoint and region", name)
		}
	}
	f := &Fence{bucket: u.Host, prefix: strings.Trim(u.Path, "/")}
	if f.prefix != "" {
		f.prefix += "/"
	}
	endpoint, secure := "s3.amazonaws.com", true
	if text := query.Get("endpoint"); text != "" {
		e, err := url.Parse(text)
		if err != nil || e.Scheme != "https" && e.Scheme != "http" || e.Host == "" || e.User != nil ||
			strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
			return nil, errors.New("the endpoint in the URL is not of the form https://HOST or http://HOST")
		}
		endpoint, secure = e.Host, e.Scheme == "https"
	}
	if f.transport, err = minio.DefaultTransport(secure); err != nil {
		return nil, err
	}
	opt := minio.Options{
		Secure: secure, Transport: f.transport,
		// Without a region each start would have to ask for the bucket's.
		Region: firstOf(query.Get("region"), os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), "us-east-1"),
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{},
			&credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Timeout: patience}},
		}),
	}
	opt.MaxRetries = 3
	if f.read, err = minio.NewCore(endpoint, &opt); err != nil {
		return nil, err
	}
	opt.MaxRetries = 1
	f.write, err = minio.NewCore(endpoint, &opt)
	return f, err
}

func firstOf(values ...string) string {
	i := slices.IndexFunc(values, func(s string) bool { return s != "" })
	return values[i]
}

// probe writes an object on conditions that hold and on conditions that don't. The object stays, so that a server needs no
// right to delete.
func (f *Fence) probe(ctx context.Context) error {
	if v, err := f.read.GetCreds(); err == nil && v.AccessKeyID == "" {
		return errors.New("there are no credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, nor a " +
			"shared credentials file, nor a role of this machine")
	}
	const name = "probe"
	content := []byte("Treeline finds out here whether conditions are minded.\n")
	absent, other := ifNone(), ifMatch("00000000000000000000000000000000")

	if err := f.put(ctx, name, content, absent); err != nil && !refused(err) {
		return err
	}
	if err := f.put(ctx, name, content, absent); err == nil {
		return errors.New("the server ignores If-None-Match, so it can't keep a fence: two servers could sign two histories")
	} else if !refused(err) {
		return err
	}
	if err := f.put(ctx, name, content, other); err == nil {
		return errors.New("the server ignores If-Match, so it can't keep a fence: two servers could sign two histories")
	} else if !refused(err) {
		return err
	}
	// Others may be opening the fence meanwhile, and their writes get in between.
	var err error
	for range 10 {
		var etag string
		if _, etag, err = f.get(ctx, name); err != nil {
			return err
		}
		if err = f.put(ctx, name, content, ifMatch(etag)); !refused(err) {
			return err
		}
	}
	return fmt.Errorf("the server refuses a write whose condition holds: %w", err)
}

// String returns the fence's place, without what is secret.
func (f *Fence) String() string { return "s3://" + f.bucket + "/" + strings.TrimSuffix(f.prefix, "/") }

// Close ends idle connections.
func (f *Fence) Close() error {
	f.transport.CloseIdleConnections()
	return nil
}

// Load is [checkpoint.Fence.Load].
func (f *Fence) Load(ctx context.Context, origin string) ([]byte, error) {
	msg, _, err := f.load(ctx, origin)
	return msg, err
}

// load returns the note, or nil, and the ETag of its object.
func (f *Fence) load(ctx context.Context, origin string) (msg []byte, etag string, err error) {
	msg, etag, err = f.get(ctx, checkpoint.FenceName(origin))
	if err == nil && msg != nil {
		err = checkpoint.CheckFenced(origin, msg)
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading fence of %s in %s: %w", origin, f, err)
	}
	return msg, etag, nil
}

// Swap is [checkpoint.Fence.Swap].
func (f *Fence) Swap(ctx context.Context, origin string, old, new []byte) error {
	if err := checkpoint.CheckFenced(origin, new); err != nil {
		return fmt.Errorf("moving fence: %w", err)
	}
	now, etag, err := f.load(ctx, origin)
	if err != nil {
		return err
	}
	if (now == nil) != (old == nil) || !bytes.Equal(now, old) {
		return fmt.Errorf("moving fence of %s in %s: %w", origin, f, checkpoint.ErrFenceMoved)
	}
	condition := ifMatch(etag)
	if now == nil {
		condition = ifNone()
	}
	if err := f.put(ctx, checkpoint.FenceName(origin), new, condition); refused(err) {
		return fmt.Errorf("moving fence of %s in %s: %w: %w", origin, f, checkpoint.ErrFenceMoved, err)
	} else if err != nil {
		return fmt.Errorf("moving fence of %s in %s: %w", origin, f, err)
	}
	return nil
}

// Origins is [checkpoint.Fence.Origins].
func (f *Fence) Origins(ctx context.Context) ([]string, error) {
	names, err := f.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading fence %s: %w", f, err)
	}
	var (
		mu      sync.Mutex
		origins []string
	)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, name := range names {
		group.Go(func() error {
			msg, _, err := f.get(ctx, name)
			if err != nil {
				return fmt.Errorf("reading fence %s/%s: %w", f, name, err)
			}
			if msg == nil {
				return nil // dropped meanwhile
			}
			origin, err := checkpoint.FencedOrigin(name, msg)
			if err != nil {
				return fmt.Errorf("reading fence %s/%s: %w", f, name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			origins = append(origins, origin)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(origins)
	return origins, nil
}

// list returns the names that notes have. Others are the probe, and what isn't the fence's.
func (f *Fence) list(ctx context.Context) (names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	for o := range f.read.Client.ListObjects(ctx, f.bucket, minio.ListObjectsOptions{Prefix: f.prefix}) {
		if o.Err != nil {
			return nil, o.Err
		}
		if name := strings.TrimPrefix(o.Key, f.prefix); checkpoint.IsFenceName(name) {
			names = append(names, name)
		}
	}
	return names, ctx.Err() // which ends the list, too
}

// Drop is [checkpoint.Fence.Drop].
func (f *Fence) Drop(ctx context.Context, origin string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := f.read.RemoveObject(ctx, f.bucket, f.prefix+checkpoint.FenceName(origin), minio.RemoveObjectOptions{})
	if err != nil && !absent(err) {
		return fmt.Errorf("dropping fence of %s in %s: %w", origin, f, err)
	}
	return nil
}

// get returns the content of the object and its ETag; nil if there is no such object.
func (f *Fence) get(ctx context.Context, name string) (content []byte, etag string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, info, _, err := f.read.GetObject(ctx, f.bucket, f.prefix+name, minio.GetObjectOptions{})
	if absent(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	if info.ETag == "" {
		return nil, "", errors.New("the server gave the object no ETag")
	}
	content, err = io.ReadAll(io.LimitReader(body, maxNote))
	return content, info.ETag, err
}

// put writes the object if the condition holds.
func (f *Fence) put(ctx context.Context, name string, content []byte, condition minio.PutObjectOptions) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	condition.ContentType = "text/plain; charset=utf-8"
	condition.SendContentMd5 = true // which a bucket with object lock asks for
	_, err := f.write.Client.PutObject(ctx, f.bucket, f.prefix+name, bytes.NewReader(content), int64(len(content)), condition)
	return err
}

// ifNone is the condition that there is no such object.
func ifNone() (opt minio.PutObjectOptions) {
	opt.SetMatchETagExcept("*")
	return opt
}

// ifMatch is the condition that the object is the one that has the ETag.
func ifMatch(etag string) (opt minio.PutObjectOptions) {
	opt.SetMatchETag(etag)
	return opt
}

// absent reports whether the server says that there is no such object. The client library takes any answer 404 for that, also
// one of a proxy that can't find the server, but only what S3 itself answers is in XML.
func absent(err error) bool {
	r := minio.ToErrorResponse(err)
	return r.Code == minio.NoSuchKey && r.XMLName.Local == "Error"
}

// refused reports whether a write was refused, and nothing changed, because its condition doesn't hold (412), the object to be
// replaced is gone (404), or another write is under way (409).
func refused(err error) bool {
	code := minio.ToErrorResponse(err).StatusCode
	return code == http.StatusPreconditionFailed || code == http.StatusConflict || absent(err)
}
