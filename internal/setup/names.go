package setup

import (
	"fmt"
	"strings"
	"unicode"

	"keyfob/profiles"
)

// DefaultTemplate names profiles of Identity Center.
const DefaultTemplate = "{account_name}-{role}"

// Named is what a name is made of.
type Named struct {
	AccountID, AccountName, Role, Session string
}

// placeholders are the words of a template, without their braces.
func (n Named) placeholders() map[string]string {
	account := n.AccountName
	if sanitise(account) == "" {
		account = n.AccountID
	}
	return map[string]string{"account_name": account, "account_id": n.AccountID, "role": n.Role, "session": n.Session}
}

// CheckTemplate says what is wrong with a template of names.
func CheckTemplate(template string) error {
	_, err := expand(template, Named{AccountID: "1", AccountName: "a", Role: "r", Session: "s"})
	return err
}

func expand(template string, n Named) (string, error) {
	var b strings.Builder
	words := n.placeholders()
	for rest := template; ; {
		i := strings.IndexByte(rest, '{')
		if i < 0 {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:i])
		word, after, ok := strings.Cut(rest[i+1:], "}")
		value, known := words[word]
		if !ok || !known {
			return "", fmt.Errorf("{%s} is not one of {account_name}, {account_id}, {role}, {session}", word)
		}
		b.WriteString(sanitise(value))
		rest = after
	}
	name := b.String()
	if sanitise(name) == "" || !profiles.ValidName(name) {
		return "", fmt.Errorf("it gives %q, which is no profile name: use letters, digits and _-/.%%@:+", name)
	}
	return name, nil
}

// sanitise makes a part of a name of a text: whatever the grammar of a
// profile's name does not take becomes "-", once.
func sanitise(text string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.TrimSpace(text) {
		ok := r < 0x80 && (r == '_' || r == '.' || r == '@' || r == '+' || unicode.IsDigit(r) || unicode.IsLetter(r)) ||
			r >= 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)) && r != unicode.ReplacementChar
		if !ok {
			dash = true
			continue
		}
		if dash && b.Len() > 0 {
			b.WriteByte('-')
		}
		dash = false
		b.WriteRune(r)
	}
	return b.String()
}

// Names names each of all by the template. Names that would be those of
// several get the account's number, and then a count; so do those that
// taken says another profile has.
func Names(template string, all []Named, taken func(name string, of Named) bool) ([]string, error) {
	wanted := make([]string, len(all))
	times := map[string]int{}
	for i, n := range all {
		name, err := expand(template, n)
		if err != nil {
			return nil, fmt.Errorf("cannot name profiles by %q: %w", template, err)
		}
		wanted[i] = name
		times[name]++
	}
	given := map[string]bool{}
	free := func(name string, of Named) bool { return !given[name] && !taken(name, of) }
	for i, n := range all {
		name := wanted[i]
		if times[name] > 1 || !free(name, n) {
			if with := name + "-" + n.AccountID; !strings.Contains(name, n.AccountID) {
				name = with
			}
		}
		base := name
		for k := 2; !free(name, n); k++ {
			name = fmt.Sprintf("%s-%d", base, k)
		}
		given[name] = true
		wanted[i] = name
	}
	return wanted, nil
}
