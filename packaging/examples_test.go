package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// render fills in the examples with python's yaml and jinja2, which cloud-init
// and Ansible use, and returns the settings files that come of them.
const render = `
import sys, yaml
out = sys.argv[1]
data = yaml.safe_load(open("examples/cloud-init/user-data.yml"))
for f in data["write_files"]:
    name = {"/etc/keyfob/config.toml": "cloud-init.toml", "/etc/keyfob/aws/config": "aws", "/usr/local/sbin/install-keyfob": "install.sh"}.get(f["path"])
    if name: open(f"{out}/{name}", "w").write(f["content"])
import jinja2
play = yaml.safe_load(open("examples/ansible/keyfob.yml"))[0]
text = open("examples/ansible/templates/config.toml.j2").read()
open(f"{out}/ansible.toml", "w").write(jinja2.Template(text).render(keyfob_groups=["root"]))
text = open("examples/ansible/templates/aws-config.j2").read()
a = jinja2.Template(text, undefined=jinja2.StrictUndefined).render(**play["vars"])
assert a.split("\n", 1)[1].strip() == open(f"{out}/aws").read().strip(), "the two examples have different profiles"
`

// TestExamples: the settings of the examples are settings, and whoever judges
// cloud-init's and Ansible's files finds them right.
func TestExamples(t *testing.T) {
	t.Parallel()
	_, stage := build(t)
	if exec.Command("/usr/bin/python3", "-c", "import yaml, jinja2").Run() != nil {
		t.Skip("/usr/bin/python3 has no yaml or no jinja2")
	}
	dir := t.TempDir()
	if said, err := exec.Command("/usr/bin/python3", "-c", render, dir).CombinedOutput(); err != nil {
		t.Fatalf("%s", said)
	}
	for _, name := range []string{"cloud-init.toml", "ansible.toml"} {
		file := filepath.Join(dir, name)
		text := strings.ReplaceAll(string(read(t, file)), `"deploy"`, `"root"`) // a group that this machine has
		text += "\n[aws]\nconfig_file = \"" + filepath.Join(dir, "aws") + "\"\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(stage, "bin", "linux-amd64", "keyfobd"), "validate", "--config", file)
		cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin", "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null"}
		if said, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(said), "in no file") {
			t.Errorf("%s: %v %s", name, err, said)
		}
	}
	for _, c := range [][]string{
		{"cloud-init", "schema", "-c", "examples/cloud-init/user-data.yml"},
		{"ansible-playbook", "--syntax-check", "-i", "localhost,", "examples/ansible/keyfob.yml"},
		{"shellcheck", "-S", "warning", filepath.Join(dir, "install.sh")},
	} {
		if _, err := exec.LookPath(c[0]); err != nil {
			t.Logf("%s is not installed: not checked by it", c[0])
			continue
		}
		if said, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", c, said)
		}
	}
}
