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
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/checkpoint/s3conn"
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
	bucket *s3conn.Bucket
	read   *minio.Core // tries again
	write  *minio.Core // doesn't
}

var _ checkpoint.Fence = (*Fence)(nil)

// Open opens the fence at a URL:
//
//	s3://BUCKET/PREFIX?endpoint=https://s3.example.com&region=REGION
//
// which says where the server is and takes the credentials from the environment, see s3conn.Parse. The bucket must exist, and is the fence's from the prefix on: an
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
	bucket, err := s3conn.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	f := &Fence{bucket: bucket}
	if f.read, err = bucket.Client(3); err != nil {
		return nil, err
	}
	f.write, err = bucket.Client(1)
	return f, err
}

// probe writes an object on conditions that hold and on conditions that don't. The object stays, so that a server needs no
// right to delete.
func (f *Fence) probe(ctx context.Context) error {
	if err := s3conn.CheckCredentials(f.read); err != nil {
		return err
	}
	const name = "probe"
	content := []byte("Treeline finds out here whether conditions are minded.\n")
	absent, other := s3conn.IfNone(), s3conn.IfMatch("00000000000000000000000000000000")

	if err := f.put(ctx, name, content, absent); err != nil && !s3conn.Refused(err) {
		return err
	}
	if err := f.put(ctx, name, content, absent); err == nil {
		return errors.New("the server ignores If-None-Match, so it can't keep a fence: two servers could sign two histories")
	} else if !s3conn.Refused(err) {
		return err
	}
	if err := f.put(ctx, name, content, other); err == nil {
		return errors.New("the server ignores If-Match, so it can't keep a fence: two servers could sign two histories")
	} else if !s3conn.Refused(err) {
		return err
	}
	// Others may be opening the fence meanwhile, and their writes get in between.
	var err error
	for range 10 {
		var etag string
		if _, etag, err = f.get(ctx, name); err != nil {
			return err
		}
		if err = f.put(ctx, name, content, s3conn.IfMatch(etag)); !s3conn.Refused(err) {
			return err
		}
	}
	return fmt.Errorf("the server refuses a write whose condition holds: %w", err)
}

// String returns the fence's place, without what is secret.
func (f *Fence) String() string { return f.bucket.String() }

// Close ends idle connections.
func (f *Fence) Close() error { return f.bucket.Close() }

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
	condition := s3conn.IfMatch(etag)
	if now == nil {
		condition = s3conn.IfNone()
	}
	if err := f.put(ctx, checkpoint.FenceName(origin), new, condition); s3conn.Refused(err) {
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
	for o := range f.read.Client.ListObjects(ctx, f.bucket.Name, minio.ListObjectsOptions{Prefix: f.bucket.Prefix}) {
		if o.Err != nil {
			return nil, o.Err
		}
		if name := strings.TrimPrefix(o.Key, f.bucket.Prefix); checkpoint.IsFenceName(name) {
			names = append(names, name)
		}
	}
	return names, ctx.Err() // which ends the list, too
}

// Drop is [checkpoint.Fence.Drop].
func (f *Fence) Drop(ctx context.Context, origin string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := f.read.RemoveObject(ctx, f.bucket.Name, f.bucket.Prefix+checkpoint.FenceName(origin), minio.RemoveObjectOptions{})
	if err != nil && !s3conn.Absent(err) {
		return fmt.Errorf("dropping fence of %s in %s: %w", origin, f, err)
	}
	return nil
}

// get returns the content of the object and its ETag; nil if there is no such object.
func (f *Fence) get(ctx context.Context, name string) (content []byte, etag string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, info, _, err := f.read.GetObject(ctx, f.bucket.Name, f.bucket.Prefix+name, minio.GetObjectOptions{})
	if s3conn.Absent(err) {
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
	_, err := f.write.Client.PutObject(ctx, f.bucket.Name, f.bucket.Prefix+name, bytes.NewReader(content), int64(len(content)), condition)
	return err
}
