// Package index is the search index of a log as bytes: what is in a segment, how segments are built from events and merged,
// and how terms are looked up in them. It is pure: no I/O, no clock, no randomness. Package log reads events and stores
// segments; the stores (log/sqlite) keep them as opaque blocks and import this package for its types alone.
//
// # Segments
//
// The index of a log is cut into aligned segments. One of level 0 covers [Width] events, one of level 1 the [Fanout] segments
// of level 0 that it was merged from. Below, a log whose first 3 × 65,536 + 2 × 1,024 events are indexed:
//
//	level 1   |----- 0 -----|----- 1 -----|----- 2 -----|
//	level 0                                             |192|193|
//	                                                            ^ from here on events are searched themselves
//
// A segment is a pure function of its events, and merging is what building at once would have given. So an index can be
// compared with the events byte by byte, and two servers that index the same events write the same.
//
// # Blocks
//
// A segment is an inverted index: sorted keys, and for each of them its postings, the offsets in the segment of the events
// that have it. It is cut into blocks of about 4 KiB, each of which is stored under a key, so that a look-up reads
// one block and not the segment. The blocks of a segment, by the key that they are stored under:
//
//	00 0000    occurred times of the events [0, 1024)
//	00 0001    occurred times of the events [1024, 2048), at level 1
//	…
//	01         the keys from the first one up to the next block's
//	k          the keys from k up to the next block's
//	…
//
// Every block begins with a checksum and ends the same way, whatever is in it:
//
//	block    = u64(checksum) ‖ body              checksum: xxhash64 of level, segment, the block's key and words, xor that of body
//	times    = varint(t0) ‖ varint(t1 - t0) ‖ …
//	postings = uvarint(len(next)) ‖ next ‖ entry ‖ entry ‖ …         next: the key of the next block, empty in the last one
//	entry    = uvarint(shared) ‖ uvarint(len(rest)) ‖ rest ‖ list    the key is the first shared bytes of the one before, and rest
//	list     = uvarint(offset<<2)                                     one event
//	         | uvarint(len<<2 | 1) ‖ uvarint(first) ‖ uvarint(gap-1)… several
//	         | uvarint(len<<2 | 2) ‖ bitmap                           several, where that is shorter
//
// Since a block says where the next one begins, one that is missing is noticed as much as one that was changed: a look-up
// either finds all that was indexed or returns [ErrDamaged].
//
// # Keys
//
// A key is one byte that names the field, and the value: actions and words as text, so that all of a prefix are a range of
// keys, everything else as the eight bytes of its xxhash64. Hashes may collide, by chance or on purpose, and of long words only
// the beginning is in the key. That costs a look at an event which turns out not to be meant, and no more: what the index finds
// are candidates, and the caller checks each.
//
// What a word is, the caller says, and names it: see [Meta]'s Words. Segments that were written before there were words have none,
// and those that another version has written may have others. A caller looks for words in those alone whose name it knows.
package index
