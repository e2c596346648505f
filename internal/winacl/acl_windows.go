package winacl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The accounts that are trusted besides the process's own user.
const (
	system         = "S-1-5-18"
	administrators = "S-1-5-32-544"
	installer      = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464" // NT SERVICE\TrustedInstaller owns C:\
	creatorOwner   = "S-1-3-0"                                                        // whoever makes a file; in entries to inherit
	ownerRights    = "S-1-3-4"                                                        // whoever owns the file
)

// Error says who may do what they should not.
type Error struct {
	Text string
	Help string // a command that mends it
}

func (e *Error) Error() string { return e.Text }

// Hint says how to mend it.
func (e *Error) Hint() string { return e.Help }

// Descriptor is the security descriptor of a private directory as SDDL: full
// control for the process's user, the system and administrators, nothing
// from the directories above, and the same for all that is made inside. That
// of a machine's daemon (machine) leaves out the user, who may be an
// administrator that started it by hand.
func Descriptor(machine bool) (string, error) {
	var b strings.Builder
	b.WriteString("D:PAI")
	who, err := owners(machine)
	if err != nil {
		return "", err
	}
	for _, sid := range who {
		b.WriteString("(A;OICI;FA;;;" + sid + ")")
	}
	return b.String(), nil
}

// owners are whom a private directory is for.
func owners(machine bool) ([]string, error) {
	who := []string{system, administrators}
	if machine {
		return who, nil
	}
	me, err := self()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(who, me) {
		who = append([]string{me}, who...)
	}
	return who, nil
}

func self() (string, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("cannot tell which user this is: %w", err)
	}
	return u.User.Sid.String(), nil
}

// MakePrivate makes a directory as Descriptor says, and those above it as
// usual. One that exists must pass CheckPrivate, which refuses links; its list is then made
// independent of the directories above, so that widening theirs does not
// widen it.
func MakePrivate(dir string, machine bool) error {
	text, err := Descriptor(machine)
	if err != nil {
		return err
	}
	sd, err := windows.SecurityDescriptorFromString(text)
	if err != nil {
		return fmt.Errorf("cannot make an access list: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return err
	}
	attributes := &windows.SecurityAttributes{SecurityDescriptor: sd}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	err = windows.CreateDirectory(name, attributes)
	if err == nil {
		return nil
	}
	if !errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	if err := CheckPrivate(dir); err != nil {
		return err
	}
	now, err := read(dir, false)
	if err != nil {
		return err
	}
	if control, _, err := now.Control(); err != nil || control&windows.SE_DACL_PROTECTED != 0 {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	err = windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	if err != nil {
		return fmt.Errorf("cannot set the access list of %s: %w", dir, err)
	}
	return nil
}

// CheckPrivate refuses a directory that belongs to somebody else or gives
// anybody else any right, itself or to what is made in it: whoever may do
// nothing in a directory may still open a file in it whose own list lets
// them (SeChangeNotifyPrivilege, which everybody has). It refuses a junction
// or another link, too: everybody may make one below %ProgramData%, and it
// leads where its maker says, to a directory that may pass. Errors about that
// are *Error.
func CheckPrivate(dir string) error {
	h, err := open(dir, windows.READ_CONTROL|windows.FILE_READ_ATTRIBUTES, true)
	if err != nil {
		return err
	}
	defer func() { _ = windows.CloseHandle(h) }()
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return fmt.Errorf("cannot look at %s: %w", dir, err)
	}
	if err := judgeKind(dir, info.FileAttributes); err != nil {
		return err
	}
	sd, err := descriptorOf(dir, h)
	if err != nil {
		return err
	}
	return judgePrivate(dir, sd)
}

// judgeKind refuses what is no directory itself.
func judgeKind(dir string, attributes uint32) error {
	if attributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		return &Error{Text: dir + " is a junction or another link", Help: "if nobody else made it: name the directory to which it leads instead, or remove it with rmdir \"" + dir + "\""}
	}
	return nil
}

func judgePrivate(dir string, sd *windows.SECURITY_DESCRIPTOR) error {
	trusted, err := trusted()
	if err != nil {
		return err
	}
	owner, _, err := sd.Owner()
	if err != nil || owner == nil {
		return fmt.Errorf("cannot tell whose %s is: %w", dir, err)
	}
	if !slices.Contains(trusted, owner.String()) {
		return &Error{Text: fmt.Sprintf("%s belongs to %s", dir, account(owner)), Help: "if nothing in it is theirs: takeown /F \"" + dir + "\" /R, and then " + mend(dir, "")}
	}
	entries, err := entriesOf(sd)
	if err != nil {
		return fmt.Errorf("cannot read the access list of %s: %w", dir, err)
	}
	for _, e := range entries {
		who := e.sid.String()
		if e.mask == 0 || slices.Contains(trusted, who) || who == creatorOwner || who == ownerRights {
			continue
		}
		return &Error{Text: fmt.Sprintf("%s lets %s in", dir, account(e.sid)), Help: mend(dir, who)}
	}
	return nil
}

// mend is the command that makes the list of dir private, in the words of
// cmd.exe and PowerShell alike.
func mend(dir, remove string) string {
	who, err := owners(strings.EqualFold(dir, machineDir()))
	if err != nil {
		return ""
	}
	command := `icacls "` + dir + `" /inheritance:r /grant:r`
	for _, sid := range who {
		command += ` "*` + sid + `:(OI)(CI)F"`
	}
	if remove != "" {
		command += ` /remove:g "*` + remove + `"`
	}
	return command
}

func machineDir() string { return filepath.Join(os.Getenv("ProgramData"), "keyfob") }

func trusted() ([]string, error) {
	me, err := self()
	return []string{me, system, administrators, installer}, err
}

// read opens path and reads whose it is and who may do what; link stands for
// a link itself instead of what it leads to.
func read(path string, link bool) (*windows.SECURITY_DESCRIPTOR, error) {
	h, err := open(path, windows.READ_CONTROL, link)
	if err != nil {
		return nil, err
	}
	defer func() { _ = windows.CloseHandle(h) }()
	return descriptorOf(path, h)
}

func descriptorOf(path string, h windows.Handle) (*windows.SECURITY_DESCRIPTOR, error) {
	sd, err := windows.GetSecurityInfo(h, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return nil, fmt.Errorf("cannot read the access list of %s: %w", path, err)
	}
	return sd, nil
}

func open(path string, access uint32, link bool) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	flags := uint32(windows.FILE_FLAG_BACKUP_SEMANTICS) // or no directory can be opened
	if link {
		flags |= windows.FILE_FLAG_OPEN_REPARSE_POINT
	}
	h, err := windows.CreateFile(name, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING, flags, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return h, nil
}

// entry is one entry that gives rights.
type entry struct {
	sid   *windows.SID
	mask  windows.ACCESS_MASK
	child bool // for what is made inside alone
}

// entriesOf lists who gets what. Entries that refuse are left out: they can
// only take away.
func entriesOf(sd *windows.SECURITY_DESCRIPTOR) ([]entry, error) {
	dacl, _, err := sd.DACL()
	if err != nil && !errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) {
		return nil, err
	}
	if dacl == nil { // no list: everybody may do everything
		everyone, err := windows.CreateWellKnownSid(windows.WinWorldSid)
		return []entry{{sid: everyone, mask: windows.GENERIC_ALL}}, err
	}
	var all []entry
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return nil, err
		}
		switch ace.Header.AceType {
		case windows.ACCESS_ALLOWED_ACE_TYPE:
			all = append(all, entry{
				sid:   (*windows.SID)(unsafe.Pointer(&ace.SidStart)),
				mask:  ace.Mask,
				child: ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0,
			})
		case windows.ACCESS_DENIED_ACE_TYPE:
		default:
			return nil, fmt.Errorf("it has an entry of a kind that is not understood (%d)", ace.Header.AceType)
		}
	}
	return all, nil
}

// account is a SID's name, or the SID where it has none.
func account(sid *windows.SID) string {
	name, domain, _, err := sid.LookupAccount("")
	switch {
	case err != nil || name == "":
		return sid.String()
	case domain == "":
		return name
	}
	return domain + `\` + name
}
