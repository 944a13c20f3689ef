package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// A FileFence is a [Fence] in a directory of the local file system. Every origin has
// a file there, whose name [FenceName] gives and whose content is the note, so that it
// can be looked at and compared with what others have seen.
//
// Several processes on one machine may use one directory. A network file system is
// not a place for it, since both locks and fsync mean less there.
type FileFence struct {
	dir string

	// mu and lock serialise changes, mu those of this process and lock those of all.
	mu   sync.Mutex
	lock *flock.Flock

	// testingOnlyStep, if not nil, is called before each step of a change. Its error
	// is that step's: the process, or the disk, fails there.
	testingOnlyStep func(step string) error
}

// lockRetry is how often the lock is tried while another process holds it, which it
// does for the time of two or three fsyncs.
const lockRetry = 5 * time.Millisecond

// OpenFileFence returns the fence in the directory dir. The directory is made, for
// the owner only, if it doesn't exist. Its parent must exist, since a path that
// leads nowhere is rather a disk that isn't mounted than a new fence.
func OpenFileFence(dir string) (*FileFence, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("opening fence: %w", err)
	}
	if err := SyncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, fmt.Errorf("opening fence: %w", err)
	}
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("opening fence: %w", err)
	}
	return &FileFence{dir: dir, lock: flock.New(filepath.Join(dir, ".lock"))}, nil
}

// Close gives up what the fence has opened. No other call may be under way.
func (f *FileFence) Close() error { return f.lock.Close() }

// Load is [Fence.Load].
func (f *FileFence) Load(ctx context.Context, origin string) ([]byte, error) {
	// A rename replaces the file at once, so no lock is needed to read it.
	msg, err := os.ReadFile(f.path(origin))
	if errors.Is(err, fs.ErrNotExist) {
		// A directory that is gone altogether is not a fence without notes.
		if _, err := os.Stat(f.dir); err != nil {
			return nil, fmt.Errorf("reading fence of %s: %w", origin, err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading fence of %s: %w", origin, err)
	}
	if err := CheckFenced(origin, msg); err != nil {
		return nil, fmt.Errorf("reading fence %s: %w", f.path(origin), err)
	}
	return msg, nil
}

// Swap is [Fence.Swap].
func (f *FileFence) Swap(ctx context.Context, origin string, old, new []byte) error {
	if err := CheckFenced(origin, new); err != nil {
		return fmt.Errorf("moving fence: %w", err)
	}
	unlock, err := f.acquire(ctx)
	if err != nil {
		return fmt.Errorf("moving fence of %s: %w", origin, err)
	}
	defer unlock()

	now, err := f.Load(ctx, origin)
	if err != nil {
		return err
	}
	if (now == nil) != (old == nil) || !bytes.Equal(now, old) {
		return fmt.Errorf("moving fence of %s: %w", origin, ErrFenceMoved)
	}
	if err := f.replace(f.path(origin), new); err != nil {
		return fmt.Errorf("moving fence of %s: %w", origin, err)
	}
	return nil
}

// replace durably replaces the file: a new one is written and synced under another
// name, given the name, and then the names are synced. Without the first sync, the
// name could survive a crash and the content not; without the second, the old file
// could come back.
func (f *FileFence) replace(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := f.step("write"); err != nil {
		return err
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // left by a crash
	}
	if err := writeSynced(tmp, data); err != nil {
		return err
	}
	if err := f.step("rename"); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	if err := f.step("sync directory"); err != nil {
		return err
	}
	return SyncDir(f.dir)
}

// Origins is [Fence.Origins].
func (f *FileFence) Origins(ctx context.Context) ([]string, error) {
	files, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("reading fence: %w", err)
	}
	var origins []string
	for _, file := range files {
		// Others are the lock, what a crash has left, and what comes with a disk,
		// such as lost+found.
		if !IsFenceName(file.Name()) {
			continue
		}
		path := filepath.Join(f.dir, file.Name())
		msg, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading fence: %w", err)
		}
		origin, err := FencedOrigin(file.Name(), msg)
		if err != nil {
			return nil, fmt.Errorf("reading fence %s: %w", path, err)
		}
		origins = append(origins, origin)
	}
	slices.Sort(origins)
	return origins, nil
}

// Drop is [Fence.Drop].
func (f *FileFence) Drop(ctx context.Context, origin string) error {
	unlock, err := f.acquire(ctx)
	if err != nil {
		return fmt.Errorf("dropping fence of %s: %w", origin, err)
	}
	defer unlock()
	if err := os.Remove(f.path(origin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dropping fence of %s: %w", origin, err)
	}
	if err := SyncDir(f.dir); err != nil {
		return fmt.Errorf("dropping fence of %s: %w", origin, err)
	}
	return nil
}

// acquire waits until nobody else changes the fence, and returns what ends that.
func (f *FileFence) acquire(ctx context.Context) (unlock func(), err error) {
	f.mu.Lock()
	if _, err := f.lock.TryLockContext(ctx, lockRetry); err != nil {
		f.mu.Unlock()
		return nil, fmt.Errorf("locking %s: %w", f.lock.Path(), err)
	}
	return func() {
		_ = f.lock.Unlock() // can only fail on a closed file, which holds no lock
		f.mu.Unlock()
	}, nil
}

// path returns the path of the origin's file.
func (f *FileFence) path(origin string) string {
	return filepath.Join(f.dir, FenceName(origin))
}

func (f *FileFence) step(name string) error {
	if f.testingOnlyStep == nil {
		return nil
	}
	return f.testingOnlyStep(name)
}
