package scan

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Database holds inventories against advisories in the format of OSV: a folder of them as JSON files, or as the archives (all.zip) that
// OSV publishes for each ecosystem, at any depth. Whoever keeps it up to date replaces files; the next scan sees it.
//
// It makes an index of the folder on disk when it is first needed and after each change, so that a scan reads only what is about the
// image's packages, and nothing is kept in memory.
type Database struct {
	dir, cache string

	mu    sync.Mutex
	index *index
}

// NewDatabase is about the advisories in dir; cache is a folder of its own for the index.
func NewDatabase(dir, cache string) *Database { return &Database{dir: dir, cache: cache} }

// Scan implements Scanner.
func (d *Database) Scan(ctx context.Context, _ Image, i *Inventory) (*Report, error) {
	x, err := d.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("advisories in %s: %w", d.dir, err)
	}
	defer d.release(x)
	byID := map[string]*Finding{}
	for _, p := range i.Packages {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list, err := x.lookup(p.Ecosystem, p.Source)
		if err != nil {
			return nil, fmt.Errorf("read the index of %s: %w", d.dir, err)
		}
		for _, a := range list {
			if fixed, yes := a.affects(p.Origin); yes {
				for _, name := range a.Names {
					note(byID, &a, name, Vulnerable{Package: p, FixedIn: fixed})
				}
			}
		}
	}
	return &Report{Source: "OSV", Updated: x.meta.Updated, Findings: sorted(byID)}, nil
}

// note adds to the finding of that name; what several advisories say of it becomes one, as bad as the worst.
func note(byID map[string]*Finding, a *advisory, name string, v Vulnerable) {
	f := byID[name]
	if f == nil {
		if len(byID) >= maxFindings {
			return
		}
		f = &Finding{ID: name, Severity: Undefined, Description: a.Description, URL: pageOf(a, name), References: a.References, Published: a.Published, Modified: a.Modified}
		byID[name] = f
	}
	if a.Severity.Rank() > f.Severity.Rank() || a.Severity == f.Severity && a.Score > f.Score {
		f.Severity, f.Score, f.Vector = a.Severity, a.Score, a.Vector
	}
	if a.ID != name && !slices.Contains(f.Related, a.ID) {
		f.Related = append(f.Related, a.ID)
	}
	for i := range f.Packages {
		if f.Packages[i].Package == v.Package {
			f.Packages[i].FixedIn = cmp.Or(f.Packages[i].FixedIn, v.FixedIn)
			return
		}
	}
	f.Packages = append(f.Packages, v)
}

// sorted are the findings, the worst first.
func sorted(byID map[string]*Finding) []Finding {
	out := make([]Finding, 0, len(byID))
	for _, f := range byID {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Severity.Rank(), a.Severity.Rank()), cmp.Compare(b.Score, a.Score), strings.Compare(a.ID, b.ID))
	})
	return out
}

// Version implements Scanner: it is the state of the folder.
func (d *Database) Version() (string, error) {
	_, v, err := d.files()
	return v, err
}

// files are the folder's, and what identifies them as they are.
func (d *Database) files() (names []string, version string, err error) {
	h := sha256.New()
	io.WriteString(h, indexFormat)
	err = filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		ext := strings.ToLower(filepath.Ext(path))
		if err != nil || e.IsDir() || ext != ".json" && ext != ".zip" {
			return err
		}
		st, err := os.Stat(path) // through links: a mounted folder is made of them
		if err != nil {
			return err
		}
		names = append(names, path)
		fmt.Fprintf(h, "%q %d %d\n", path, st.Size(), st.ModTime().UnixNano())
		return nil
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%s has neither .json nor .zip files", d.dir)
	}
	return names, hex.EncodeToString(h.Sum(nil)[:16]), err
}

// open gives the index of the folder as it is now, which the caller releases.
func (d *Database) open(ctx context.Context) (*index, error) {
	names, version, err := d.files()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.index == nil || d.index.version != version {
		path := filepath.Join(d.cache, "osv-"+version)
		x, err := openIndex(path, version)
		if err != nil { // not there, or damaged
			if err = build(ctx, names, d.cache, path); err == nil {
				x, err = openIndex(path, version)
			}
		}
		if err != nil {
			return nil, err
		}
		if d.index != nil {
			d.index.drop()
		}
		d.index = x
		d.forgetOthers(path)
	}
	d.index.refs++
	return d.index, nil
}

// forgetOthers removes indexes of what the folder was, and what an interrupted build left.
func (d *Database) forgetOthers(but string) {
	old, _ := filepath.Glob(filepath.Join(d.cache, "*"))
	for _, o := range old {
		if o != but {
			os.Remove(o) // at worst it takes space until the next change
		}
	}
}

// Close lets go of the index.
func (d *Database) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.index == nil {
		return nil
	}
	err := d.index.drop()
	d.index = nil
	return err
}

func (d *Database) release(x *index) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x.drop()
}
