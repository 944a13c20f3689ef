package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Dir is an archive in a directory. An object is a file of its name.
type Dir struct{ path string }

var _ Archive = (*Dir)(nil)

// OpenDir opens the archive in a directory, which it makes if there is none.
func OpenDir(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("opening archive: %w", err)
	}
	return &Dir{path}, nil
}

// String returns the archive's place.
func (d *Dir) String() string { return "dir:" + d.path }

// Close does nothing.
func (d *Dir) Close() error { return nil }

// file returns the path of an object.
func (d *Dir) file(name string) (string, error) {
	if !filepath.IsLocal(name) || strings.HasPrefix(filepath.Base(name), ".") {
		return "", fmt.Errorf("%q can't be the name of an object in an archive", name)
	}
	return filepath.Join(d.path, filepath.FromSlash(name)), nil
}

// unfinished returns the beginning of the names of files that are being written.
func unfinished(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".")
}

// Put is Archive.Put. It leaves nothing of those that were interrupted before.
func (d *Dir) Put(ctx context.Context, name string, write func(io.Writer) error) error {
	err := d.write(ctx, name, write, func(tmp, path string) error {
		err := os.Link(tmp, path) // which fails if there is one, as a rename wouldn't
		if _, there := os.Lstat(path); errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) && there == nil {
			err = ErrExists // and who was faster may have removed this one
		}
		if removal := os.Remove(tmp); !errors.Is(removal, fs.ErrNotExist) {
			err = errors.Join(err, removal)
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	return errors.Join(err, d.Forget(ctx, name))
}

// Replace is Archive.Replace.
func (d *Dir) Replace(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := d.write(ctx, name, write, os.Rename); err != nil {
		return err
	}
	return d.Forget(ctx, name)
}

// write writes a file beside that of the object, and gives it its name by move once it is whole.
func (d *Dir) write(ctx context.Context, name string, write func(io.Writer) error, move func(tmp, path string) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s into the archive %s: %w", name, d, err)
		}
	}()
	path, err := d.file(name)
	if err != nil {
		return err
	}
	if err := makeDir(d.path, filepath.Dir(path)); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(unfinished(path))+"*")
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := move(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// makeDir makes a directory under another one, with those between, durably.
func makeDir(root, path string) error {
	err := os.Mkdir(path, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && path != root:
		if err := makeDir(root, filepath.Dir(path)); err != nil {
			return err
		}
		return makeDir(root, path)
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes durable what names are in a directory.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Forget is Archive.Forget: it removes files that were being written when something was interrupted. A write that is under way in
// another process fails then, and is done again.
func (d *Dir) Forget(_ context.Context, name string) error {
	path, err := d.file(name)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	removed := false
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(unfinished(path))) {
			if err := os.Remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			removed = true
		}
	}
	if !removed {
		return nil
	}
	return syncDir(filepath.Dir(path))
}

// Open is Archive.Open.
func (d *Dir) Open(_ context.Context, name string) (io.ReadCloser, error) {
	path, err := d.file(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return f, err
}

// List is Archive.List.
func (d *Dir) List(ctx context.Context, prefix string) (names []string, err error) {
	root := d.path
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir := filepath.FromSlash(prefix[:i])
		if !filepath.IsLocal(dir) {
			return nil, nil
		}
		root = filepath.Join(d.path, dir)
	}
	// With a separator at its end it is followed if it is a link, to another disk for example.
	err = filepath.WalkDir(root+string(filepath.Separator), func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			return err
		}
		name, err := filepath.Rel(d.path, path)
		if name = filepath.ToSlash(name); strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the archive %s: %w", d, err)
	}
	slices.Sort(names)
	return names, nil
}
