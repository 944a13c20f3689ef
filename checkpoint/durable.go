package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ReplaceFile durably writes data to the file at path, with mode 0600, in place of what it had, if there was one. Whatever
// happens meanwhile, the file has the old content or the new one. Two calls for one path must not overlap.
func ReplaceFile(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // left by a crash
	}
	if err := writeSynced(tmp, data); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// writeSynced creates the file, which must not exist, with mode 0600, and writes
// data to stable storage. The directory entry is not yet durable: see SyncDir. A
// file that couldn't be written in full is removed.
//
// After a failed fsync the kernel may mark the pages clean, and the next fsync
// report success. So nothing is tried again on a file once there was an error.
func writeSynced(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path) // the error that counts is the first
		}
	}()
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// SyncDir makes durable which names are in the directory: after a rename, and after something was made in it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		d.Close()
		return fmt.Errorf("fsync of directory: %w", err)
	}
	return d.Close()
}
