package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the files must be quiet before they are read: an
// editor writes in several steps.
const settle = 200 * time.Millisecond

// watchFiles reads settings and profiles again when a file of theirs
// changes, until ctx ends. Where watching is not possible it says so once;
// each command looks at the files by itself, and SIGHUP works always.
func (d *daemon) watchFiles(ctx context.Context) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.WithError(err).Warn("cannot watch the AWS files, changes are seen by the next command or SIGHUP")
		return
	}
	defer w.Close()
	watched := map[string]bool{}
	d.addWatches(w, watched)

	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-w.Events:
			if !ok {
				return
			}
			quiet.Reset(settle)
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			d.log.WithError(err).Warn("watching the AWS files failed for a moment")
			quiet.Reset(settle) // something may have been missed
		case <-quiet.C:
			// Directories come and go, links are changed.
			d.addWatches(w, watched)
			d.freshSettings(ctx)
			d.freshProfiles(ctx)
		case <-d.rewatch:
			d.addWatches(w, watched)
		}
	}
}

// addWatches watches the directories in which the files stand: files are
// replaced by renames, which a watch of the file itself would not see. A
// symbolic link is watched at both ends. Where a directory does not exist
// yet, the nearest one above it tells when it comes.
func (d *daemon) addWatches(w *fsnotify.Watcher, watched map[string]bool) {
	want := map[string]bool{}
	for _, path := range d.filesRead() {
		want[nearestDir(filepath.Dir(path))] = true
		if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
			want[filepath.Dir(real)] = true
		}
	}
	for dir := range watched {
		if !want[dir] {
			_ = w.Remove(dir)
			delete(watched, dir)
		}
	}
	for dir := range want {
		// Again for those that are watched: the directory may be another
		// one of the same name by now.
		if err := w.Add(dir); err != nil {
			if !watched[dir] || !errors.Is(err, os.ErrNotExist) {
				d.log.WithError(err).WithField("directory", dir).Debug("cannot watch a directory")
			}
			delete(watched, dir)
			continue
		}
		watched[dir] = true
	}
}

// filesRead are the files that count, whether they exist or not.
func (d *daemon) filesRead() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var paths []string
	for _, s := range append(slices.Clone(d.stamps), d.settingStamps...) {
		paths = append(paths, s.path)
	}
	return paths
}

// nearestDir is dir, or the nearest directory above it that exists.
func nearestDir(dir string) string {
	for {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}
		dir = up
	}
}
