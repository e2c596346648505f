package signin

import (
	"strings"
	"testing"
)

// A question with choices shows them all, numbered, with nothing in them that
// does more than be read.
func TestPromptWithChoices(t *testing.T) {
	p := newPrompt(question{Kind: "choice", Profile: "dev", Text: "Which role?", Choices: []string{"arn:aws:iam::1:role/A", "b\x1b[31m\nc"}})
	want := "keyfob needs an answer\nProfile: dev\nWhich role?\n1  arn:aws:iam::1:role/A\n2  b[31m c"
	if got := p.body(); got != want {
		t.Errorf("the dialog says %q, want %q", got, want)
	}
	if p.label != "1 to 2:" {
		t.Errorf("the field is called %q", p.label)
	}
	if want := "keyfob needs an answer for profile dev, Which role?\n1  arn:aws:iam::1:role/A\n2  b[31m c\n1 to 2: "; p.short != want {
		t.Errorf("the terminal says %q, want %q", p.short, want)
	}
	if value, err := p.value(" 2\n"); err != nil || strings.TrimSpace(value) != "2" {
		t.Errorf("the value is %q, %v", value, err)
	}
}
