package winacl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/windows"
)

const fileDeleteChild = 0x40 // FILE_DELETE_CHILD

const (
	// takeOver are rights with which somebody gets all the others, or moves
	// the thing away and puts his own there.
	takeOver = windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_ALL
	// replacing are those that do it to what is in a directory. To make more
	// in it, which %ProgramData% permits everybody, is none of them: what is
	// there already stays.
	replacing = takeOver | fileDeleteChild
	// writing are those that change a file; of a directory the same bits
	// permit to make a file or a directory in it.
	writing = takeOver | windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | windows.FILE_WRITE_ATTRIBUTES | windows.FILE_WRITE_EA | windows.GENERIC_WRITE
)

// maxLinks bounds how many links a path may lead through.
const maxLinks = 40

// WritableByOthers says who besides administrators, the system and this
// process's user may write to the file, or put another one in its place; nil
// for nobody. It goes the way that the system goes: every directory and every
// link on it counts. A file that does not exist is judged by the directory in
// which it could be made.
func WritableByOthers(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	at, rest := split(path)
	if err := judgeStep(at, len(rest) > 0); err != nil {
		return err
	}
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		st, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			return judge(at, false, writing, "may make files in")
		}
		if err != nil {
			return err
		}
		if err := judgeStep(next, len(rest) > 0); err != nil {
			return err
		}
		at = next
		if st.Mode()&(fs.ModeSymlink|fs.ModeIrregular) == 0 {
			continue
		}
		real, err := resolve(next)
		if err != nil {
			return err
		}
		if strings.EqualFold(real, next) {
			continue // a file of another kind that leads nowhere
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s leads through too many links", path)
		}
		var more []string
		at, more = split(real)
		rest = append(more, rest...)
	}
	return nil
}

// split takes a path apart into its volume's root and the names below it.
func split(path string) (root string, names []string) {
	volume := filepath.VolumeName(path)
	for name := range strings.SplitSeq(path[len(volume):], `\`) {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return volume + `\`, names
}

// resolve is the path to which a link leads in the end.
func resolve(path string) (string, error) {
	h, err := open(path, 0, false)
	if err != nil {
		return "", err
	}
	defer func() { _ = windows.CloseHandle(h) }()
	b := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetFinalPathNameByHandle(h, &b[0], uint32(len(b)), 0)
	if err != nil || int(n) > len(b) {
		return "", fmt.Errorf("cannot tell where %s leads: %w", path, err)
	}
	real := windows.UTF16ToString(b[:n])
	if unc, ok := strings.CutPrefix(real, `\\?\UNC\`); ok {
		return `\\` + unc, nil
	}
	return strings.TrimPrefix(real, `\\?\`), nil
}

// judgeStep judges one step of a path: a directory on the way (inside), or
// the file.
func judgeStep(path string, inside bool) error {
	if inside {
		return judge(path, true, replacing, "may replace what is in")
	}
	return judge(path, true, writing, "may write to")
}

func judge(path string, link bool, rights windows.ACCESS_MASK, may string) error {
	sd, err := read(path, link)
	if err != nil {
		return err
	}
	return judgeWriting(path, sd, rights, may)
}

func judgeWriting(path string, sd *windows.SECURITY_DESCRIPTOR, rights windows.ACCESS_MASK, may string) error {
	trusted, err := trusted()
	if err != nil {
		return err
	}
	owner, _, err := sd.Owner()
	if err != nil || owner == nil {
		return fmt.Errorf("cannot tell whose %s is: %w", path, err)
	}
	if !slices.Contains(trusted, owner.String()) {
		return fmt.Errorf("%s belongs to %s", path, account(owner))
	}
	entries, err := entriesOf(sd)
	if err != nil {
		return fmt.Errorf("cannot read the access list of %s: %w", path, err)
	}
	for _, e := range entries {
		who := e.sid.String()
		if e.child || e.mask&rights == 0 || slices.Contains(trusted, who) || who == ownerRights {
			continue
		}
		return fmt.Errorf("%s %s %s", account(e.sid), may, path)
	}
	return nil
}
