package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// SQLite overwrites what it deletes (secure_delete). But where it has moved a row to another page before, since that was full, a copy may
// have stayed behind in the space of the first page that nothing uses, and that isn't overwritten when the row is. So all pages of the
// trees are looked through, and what nothing uses is zeroed, as SQLite itself does whenever it tidies a page up.
//
// Only vacuuming moves whole pages, with what is unused in them. It is done before, and if there was something to do, one begins again;
// as when something more was removed meanwhile.

// Statements of scrubbing. The table sqlite_dbpage is the file's pages (https://sqlite.org/dbpage.html).
const (
	sqlNoteRemoval = `
		UPDATE removals SET version = version + 1`
	sqlRemovals = `
		SELECT version, done FROM removals`
	sqlRemovalsDone = `
		UPDATE removals SET done = ?1 WHERE version = ?1`
	sqlPage = `
		SELECT data FROM sqlite_dbpage WHERE pgno = ?`
	sqlWritePage = `
		UPDATE sqlite_dbpage SET data = ? WHERE pgno = ?`
)

// scrubPages is how many pages are read in one transaction, which nobody waits for; those that have something are written in another one.
const scrubPages = 512

// scrub is how far the pages of a file have been looked through.
type scrub struct {
	version int64 // of what was removed
	next    uint32
}

// scrub goes on to look through a file's pages, and reports whether there are more.
func (s *Store) scrub(ctx context.Context, write, read *sqlx.DB, at *scrub) (more bool, err error) {
	var version, done int64
	if err := write.QueryRowxContext(ctx, sqlRemovals).Scan(&version, &done); err != nil {
		return false, describe(err)
	}
	if version == done {
		return false, nil
	}
	if at.version != version {
		*at = scrub{version: version, next: 1}
	}
	for range shredSteps {
		from := at.next
		unclean, end, err := uncleanPages(ctx, read, from, from+scrubPages)
		if err != nil {
			return false, err
		}
		if err := cleanPages(ctx, write, unclean); err != nil {
			return false, err
		}
		if err := s.fault("scrubbed some pages"); err != nil {
			return false, err
		}
		at.next = end
		if end < from+scrubPages { // the last one
			res, err := write.ExecContext(ctx, sqlRemovalsDone, version)
			if err != nil {
				return false, describe(err)
			}
			n, err := res.RowsAffected()
			return n == 0, err
		}
	}
	return true, nil
}

// uncleanPages returns which of the pages [from, to) have something that nothing uses, and after which one it has ended.
func uncleanPages(ctx context.Context, read *sqlx.DB, from, to uint32) (unclean []uint32, end uint32, err error) {
	t, err := read.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, 0, describe(err)
	}
	defer t.Rollback()
	p, err := readPages(ctx, t)
	if err != nil {
		return nil, 0, err
	}
	for end = from; end < min(to, p.count+1); end++ {
		page, err := p.clean(ctx, end)
		if err != nil {
			return nil, 0, err
		}
		if page != nil {
			unclean = append(unclean, end)
		}
	}
	return unclean, end, nil
}

// cleanPages cleans pages, some in each transaction.
func cleanPages(ctx context.Context, write *sqlx.DB, unclean []uint32) error {
	for len(unclean) > 0 {
		n := min(len(unclean), shredPages)
		if err := cleanSome(ctx, write, unclean[:n]); err != nil {
			return err
		}
		unclean = unclean[n:]
	}
	return nil
}

func cleanSome(ctx context.Context, write *sqlx.DB, unclean []uint32) error {
	t, err := write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	p, err := readPages(ctx, t)
	if err != nil {
		return err
	}
	for _, number := range unclean {
		page, err := p.clean(ctx, number) // as it is now
		if err != nil {
			return err
		}
		if page == nil {
			continue
		}
		if _, err := t.ExecContext(ctx, sqlWritePage, page, number); err != nil {
			return describe(err)
		}
	}
	return describe(t.Commit())
}

// pages reads the pages of a file, within a transaction.
type pages struct {
	tx          *sqlx.Tx
	size, count uint32
	mapped      uint32 // the number of the page that types is
	types       []byte
}

func readPages(ctx context.Context, t *sqlx.Tx) (*pages, error) {
	p := &pages{tx: t}
	if err := t.GetContext(ctx, &p.size, `PRAGMA page_size`); err != nil {
		return nil, describe(err)
	}
	err := t.GetContext(ctx, &p.count, `PRAGMA page_count`)
	return p, describe(err)
}

func (p *pages) read(ctx context.Context, number uint32) (page []byte, err error) {
	if err := p.tx.GetContext(ctx, &page, sqlPage, number); err != nil {
		return nil, describe(err)
	}
	if uint32(len(page)) != p.size {
		return nil, damaged("page %d has %d bytes", number, len(page))
	}
	return page, nil
}

// pendingByte is where SQLite locks a file; the page that it is in is never used (https://sqlite.org/fileformat.html, 1.4).
const pendingByte = 0x40000000

// isTree reports whether a page is one of a tree, by the pages that map the others (https://sqlite.org/fileformat.html, 1.8): five bytes
// for each of those that follow, the first of them its type. No content is in the first page of the file, which isn't mapped.
func (p *pages) isTree(ctx context.Context, number uint32) (bool, error) {
	const entry, root, tree = 5, 1, 5
	pending := pendingByte/p.size + 1
	if number < 3 || number == pending {
		return false, nil
	}
	each := p.size/entry + 1
	mapped := (number-2)/each*each + 2
	if mapped == pending {
		mapped++
	}
	if number <= mapped {
		return false, nil
	}
	if p.mapped != mapped {
		var err error
		if p.types, err = p.read(ctx, mapped); err != nil {
			return false, err
		}
		p.mapped = mapped
	}
	kind := p.types[entry*(number-mapped-1)]
	return kind == root || kind == tree, nil
}

// clean returns a page of a tree without what nothing uses in it, nil if it is clean, or another kind of page.
func (p *pages) clean(ctx context.Context, number uint32) ([]byte, error) {
	if tree, err := p.isTree(ctx, number); err != nil || !tree {
		return nil, err
	}
	page, err := p.read(ctx, number)
	if err != nil {
		return nil, err
	}
	changed, err := zeroUnused(page)
	if err != nil {
		return nil, fmt.Errorf("page %d: %w", number, err)
	}
	if !changed {
		return nil, nil
	}
	return page, nil
}

// zeroUnused zeroes what nothing uses in a page of a tree: what is between the pointers to its cells and the first cell, and the blocks
// that were freed between cells (https://sqlite.org/fileformat.html, 1.6). It reports whether that wasn't zero already.
func zeroUnused(page []byte) (changed bool, err error) {
	number := func(at int) int { return int(binary.BigEndian.Uint16(page[at:])) }
	zero := func(from, to int) {
		for i := from; i < to; i++ {
			changed = changed || page[i] != 0
			page[i] = 0
		}
	}
	header := 8
	switch page[0] {
	case 2, 5: // interior
		header = 12
	case 10, 13: // leaf
	default:
		return false, damaged("a tree's page is of type %d", page[0])
	}
	pointers, cells := header+2*number(3), number(5)
	if cells == 0 {
		cells = 65536
	}
	if pointers > cells || cells > len(page) {
		return false, damaged("a tree's page has pointers up to %d and cells from %d on", pointers, cells)
	}
	for at := number(1); at != 0; {
		next, end := number(at), at+number(at+2)
		if at < cells || end > len(page) || next != 0 && next <= at {
			return false, damaged("a tree's page has a free block from %d to %d", at, end)
		}
		zero(at+4, end)
		at = next
	}
	zero(pointers, cells)
	return changed, nil
}
