package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/treeline-log/treeline/checkpoint/s3conn"
	"github.com/treeline-log/treeline/log"
)

const (
	// patience is how long a request without content may take.
	patience = 30 * time.Second
	// slowest is how many bytes a second an upload makes at least.
	slowest = 64 << 10
)

// S3 is an archive in a bucket of an S3-compatible server.
type S3 struct {
	bucket *s3conn.Bucket
	client *minio.Core
	lock   minio.RetentionMode // "": objects aren't locked
	lockTo func(time.Time) time.Time
}

var _ Archive = (*S3)(nil)

// OpenS3 opens the archive at a URL, of which s3conn.Parse says what it may have. With lock=compliance or lock=governance each object is
// under an object lock of that mode for as long as lock_for says (30d, 6y) from when it is written: until then nobody can remove
// it, which also means that what is erased from the log stays in that version of it. The bucket must exist, and for that have been made
// with object lock.
func OpenS3(ctx context.Context, rawURL string) (*S3, error) {
	bucket, err := s3conn.Parse(rawURL, "lock", "lock_for")
	if err != nil {
		return nil, fmt.Errorf("opening archive: %w", err)
	}
	s := &S3{bucket: bucket}
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("opening archive at %s: %w", s, errors.Join(err, bucket.Close()))
	}
	return s, nil
}

func (s *S3) open(ctx context.Context) (err error) {
	mode, period := s.bucket.Params.Get("lock"), s.bucket.Params.Get("lock_for")
	switch mode {
	case "":
	case "compliance":
		s.lock = minio.Compliance
	case "governance":
		s.lock = minio.Governance
	default:
		return fmt.Errorf("lock is %q, want compliance or governance", mode)
	}
	if (mode == "") != (period == "") {
		return errors.New("lock and lock_for go together")
	}
	if mode != "" {
		age, err := log.ParseAge(period)
		if err != nil || age.Forever {
			return fmt.Errorf("lock_for is %q, want an age like 30d or 6y", period)
		}
		s.lockTo = func(now time.Time) time.Time { return now.UTC().AddDate(age.Years, 0, age.Days) }
	}
	if s.client, err = s.bucket.Client(3); err != nil {
		return err
	}
	if err := s3conn.CheckCredentials(s.client); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := s.client.BucketExists(ctx, s.bucket.Name)
	if err == nil && !found {
		err = errors.New("there is no such bucket")
	}
	if err != nil || mode == "" {
		return err
	}
	if enabled, _, _, _, err := s.client.GetObjectLockConfig(ctx, s.bucket.Name); err != nil || enabled != "Enabled" {
		return fmt.Errorf("the bucket can't lock objects: it is %q, and must be made with object lock (%w)", enabled, err)
	}
	return nil
}

// String returns the archive's place.
func (s *S3) String() string { return s.bucket.String() }

// Close ends idle connections.
func (s *S3) Close() error { return s.bucket.Close() }

// Put is Archive.Put.
func (s *S3) Put(ctx context.Context, name string, write func(io.Writer) error) error {
	err := s.put(ctx, name, write, s3conn.IfNone())
	if s3conn.Refused(err) {
		err = ErrExists
	}
	if err != nil {
		return fmt.Errorf("writing %s into the archive %s: %w", name, s, err)
	}
	return nil
}

// Replace is Archive.Replace.
func (s *S3) Replace(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := s.put(ctx, name, write, minio.PutObjectOptions{}); err != nil {
		return fmt.Errorf("writing %s into the archive %s: %w", name, s, err)
	}
	return s.Forget(ctx, name)
}

// put writes an object in one request, so that it is there as a whole or not at all, and so that no pieces of it can be left behind. Its
// length and MD5 have to be known before, so it is written into a file first, which has no name.
func (s *S3) put(ctx context.Context, name string, write func(io.Writer) error, opt minio.PutObjectOptions) error {
	f, err := os.CreateTemp("", "treeline-archive-*")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if err := write(f); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	opt.ContentType, opt.DisableMultipart, opt.SendContentMd5 = "application/zip", true, true
	if s.lock != "" {
		opt.Mode, opt.RetainUntilDate = s.lock, s.lockTo(time.Now())
	}
	ctx, cancel := context.WithTimeout(ctx, patience+time.Duration(size/slowest)*time.Second)
	defer cancel()
	_, err = s.client.Client.PutObject(ctx, s.bucket.Name, s.bucket.Prefix+name, f, size, opt)
	return err
}

// Forget is Archive.Forget: it removes all versions of an object but the newest.
func (s *S3) Forget(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := s.bucket.Prefix + name
	var old []minio.ObjectInfo
	for o := range s.client.Client.ListObjects(ctx, s.bucket.Name, minio.ListObjectsOptions{Prefix: key, WithVersions: true, Recursive: true}) {
		if o.Err != nil {
			return fmt.Errorf("looking for older versions of %s in the archive %s: %w", name, s, o.Err)
		}
		if o.Key == key && !o.IsLatest {
			old = append(old, o)
		}
	}
	if err := ctx.Err(); err != nil { // which ends the list, too
		return err
	}
	var locked *LockedError
	for _, o := range old {
		err := s.client.RemoveObject(ctx, s.bucket.Name, key, minio.RemoveObjectOptions{VersionID: o.VersionID})
		if err == nil || s3conn.Absent(err) {
			continue
		}
		until, lockErr := s.lockedUntil(ctx, o)
		if lockErr != nil || !until.After(time.Now()) {
			return fmt.Errorf("removing an older version of %s from the archive %s: %w", name, s, errors.Join(err, lockErr))
		}
		if locked == nil || until.After(locked.Until) {
			locked = &LockedError{Name: name, Until: until}
		}
	}
	if locked != nil {
		return locked
	}
	return nil
}

// lockedUntil returns until when a version of an object is locked. Not every server says so: then it is as long as this archive locks what it
// writes.
func (s *S3) lockedUntil(ctx context.Context, o minio.ObjectInfo) (time.Time, error) {
	info, err := s.client.StatObject(ctx, s.bucket.Name, o.Key, minio.StatObjectOptions{VersionID: o.VersionID})
	if err != nil {
		return time.Time{}, err
	}
	if text := info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"); text != "" {
		return time.Parse(time.RFC3339, text)
	}
	if s.lock == "" {
		return time.Time{}, nil
	}
	return s.lockTo(o.LastModified), nil
}

// Open is Archive.Open.
func (s *S3) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	body, _, _, err := s.client.GetObject(ctx, s.bucket.Name, s.bucket.Prefix+name, minio.GetObjectOptions{})
	if s3conn.Absent(err) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s from the archive %s: %w", name, s, err)
	}
	return body, nil
}

// List is Archive.List.
func (s *S3) List(ctx context.Context, prefix string) (names []string, err error) {
	opt := minio.ListObjectsOptions{Prefix: s.bucket.Prefix + prefix, Recursive: true}
	for o := range s.client.Client.ListObjects(ctx, s.bucket.Name, opt) {
		if o.Err != nil {
			return nil, fmt.Errorf("listing the archive %s: %w", s, o.Err)
		}
		names = append(names, o.Key[len(s.bucket.Prefix):])
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names, ctx.Err()
}
